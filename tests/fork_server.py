"""The process from which test ranks are forked; `tests.distributed` starts it and talks to it.

It imports the heavy packages once, never opens a process group and never starts a thread, so its
children start in milliseconds and in a sound state. One job a line on standard input: the folder of
the job. One answer a line on the original standard output: the rank that failed first, ``-`` for
none, ``time`` if the limit was passed.
"""

import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist

POLL_S = 0.002


def main() -> None:
    """Import what is asked for, then run jobs until standard input closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    forget_shared_memory_collectives()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(run_job(Path(line.rstrip("\n"))) + "\n")
        answers.flush()


def forget_shared_memory_collectives() -> None:
    """DeepSpeed would build a C++ extension for them, for most of a minute."""
    if "deepspeed" in sys.modules:
        sys.modules["deepspeed"].ops.__compatible_ops__["deepspeed_shm_comm"] = False


def run_job(folder: Path) -> str:
    """Fork the ranks and watch them; the first failure or the time limit ends them all."""
    settings = pickle.loads((folder / "settings.pickle").read_bytes())
    ranks = {fork_rank(folder, rank, settings): rank for rank in range(settings["world_size"])}
    ends = time.monotonic() + settings["limit_s"]
    while ranks:
        for process in list(ranks):
            done, status = os.waitpid(process, os.WNOHANG)
            if not done:
                continue
            rank = ranks.pop(process)
            if status != 0:
                (folder / f"status-{rank}").write_text(str(os.waitstatus_to_exitcode(status)))
                end_all(ranks)
                return str(rank)
        if time.monotonic() > ends:
            end_all(ranks)
            return "time"
        time.sleep(POLL_S)
    return "-"


def end_all(ranks: dict[int, int]) -> None:
    """Kill the ranks that still run."""
    for process in ranks:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def fork_rank(folder: Path, rank: int, settings: dict[str, Any]) -> int:
    """Fork one rank; the parent returns with its process id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        log = os.open(folder / f"rank-{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        be_rank(folder, rank, settings)
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def be_rank(folder: Path, rank: int, settings: dict[str, Any]) -> None:
    """Run the job's function as one rank and leave its result, or its exception, in the folder."""
    result = folder / f"result-{rank}.pickle"
    try:
        world_size = settings["world_size"]
        os.environ.update(settings["environment"], RANK=str(rank), LOCAL_RANK=str(rank))
        os.environ.update(WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE=str(world_size))
        sys.path[:] = settings["path"]
        torch.set_num_threads(1)
        function, arguments = pickle.loads((folder / "call.pickle").read_bytes())
        if settings["group"]:
            torch_dist.init_process_group(
                "gloo",
                init_method=f"file://{folder}/store",
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=settings["limit_s"]),
            )
        value = function(*arguments)
        if torch_dist.is_initialized():
            torch_dist.destroy_process_group()
        result.write_bytes(pickle.dumps(value))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            packed = pickle.dumps((error, text))
            pickle.loads(packed)
        except Exception:
            packed = pickle.dumps((None, text))
        result.write_bytes(packed)
        raise


if __name__ == "__main__":
    main()

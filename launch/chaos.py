"""Torture a copy of a run that is done, and compare what both have become.

Submits the run once more, as it was submitted last, into RUN-chaos; nothing in RUN is touched. The
copy is struck at random moments while it trains: a rank or all of them are killed, it is told to
end as by a preemption, requeued, stopped for a while. In the end its weights and the losses of all
steps must be RUN's, to the last bit. Each start of it may save once before it is struck, so RUN
should have more checkpoints than there are strikes. Exits with 0 if nothing differs, 1 if something
does, 2 if there is trouble.
"""

import argparse
import dataclasses
import json
import random
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError

from .fit_command import ssl_scale_program
from .slurm.chaos.blows import Blow, Dealt, draw, draw_table
from .slurm.chaos.comparison import Comparison, compare
from .slurm.chaos.copied_run import CopiedRun
from .slurm.chaos.strikes import KINDS
from .slurm.chaos.striking import Striker
from .slurm.client.packages import require_clients

EXAMPLES = f"""kinds of strikes:
{chr(10).join(f"  {kind:<10} {what}" for kind, what in KINDS.items())}

examples:
  ssl-launch chaos runs/first --kills 5
  ssl-launch chaos runs/first --kills 20 --kinds kill,terminate --seed 1
  ssl-launch chaos runs/first --dry-run
"""
DIFFERENT = 1
INTERRUPTED = 130
REPORT = "chaos.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a completed run's folder")
    parser.add_argument("--kills", type=int, default=5, metavar="N", help="strikes; default 5")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all chance; default 0")
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="A,B", help="default: all")
    parser.add_argument(
        "--pause", type=float, default=10.0, metavar="S", help="of stopped ranks; default 10 s"
    )
    parser.add_argument("--folder", type=Path, metavar="F", help="of the copy; default: RUN-chaos")
    parser.add_argument("--dry-run", action="store_true", help="print strikes, submit nothing")


def run(arguments: argparse.Namespace) -> int:
    """Submit, strike, compare; returns the exit code."""
    original: Path = arguments.run_folder.absolute()
    ranks, steps = size_of(original)
    chance = random.Random(arguments.seed)
    kinds = read_kinds(arguments.kinds)
    for name, value in {"kills": arguments.kills, "pause": arguments.pause}.items():
        if value <= 0:
            raise SslScaleError(f"--{name} must be above 0, but is {value:g}")
    blows = draw(chance, arguments.kills, kinds, ranks, steps, arguments.pause)
    given: Path | None = arguments.folder
    folder = original.with_name(f"{original.name}-chaos") if given is None else given.absolute()
    copied = CopiedRun.of(original, folder)
    if arguments.dry_run:
        print("\n".join(foretell(blows, copied)))
        return 0
    require_clients()
    job = copied.submit()
    tell(f"job {job} trains {copied.folder}; to end it before: ssl-launch cancel {copied.folder}")
    try:
        dealt = deal(Striker(copied.folder, job, tell), blows, chance)
    except KeyboardInterrupt:
        tell(f"job {job} goes on, and is struck no more")
        return INTERRUPTED
    tell("the run is done; comparing")
    comparison = compare(ssl_scale_program(), original, copied.folder)
    report = {
        "run": str(original),
        "job": job,
        "seed": arguments.seed,
        "same": comparison.is_same,
        "hashes": comparison.hashes,
        "strikes": [dataclasses.asdict(one) for one in dealt],
    }
    (copied.folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join([*draw_table(dealt), *judge(comparison, dealt, len(blows))]))
    return 0 if comparison.is_same else DIFFERENT


def deal(striker: Striker, blows: Sequence[Blow], chance: random.Random) -> list[Dealt]:
    """Deal all blows that the run gives time for, and wait until it is done."""
    dealt = []
    for one in striker.deal(blows, chance):
        dealt.append(one)
        tell(f"strike {len(dealt)} of {len(blows)} is over")
    striker.wait_for_end()
    return dealt


def size_of(original: Path) -> tuple[int, int]:
    """The ranks and steps of a run that is done.

    Raises:
        SslScaleError: it is not.
    """
    if not (original / "COMPLETED").exists():
        raise SslScaleError(
            f"{original}: must be a run that is completed, to compare with, but is not; let it "
            "finish first (ssl-launch status tells how far it is)"
        )
    try:
        steps = int((original / "COMPLETED").read_text())
        attempts: list[dict[str, Any]] = json.loads((original / "environment.json").read_text())[
            "attempts"
        ]
        ranks = int(attempts[-1]["processes"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SslScaleError(
            f"{original}: must tell its steps (COMPLETED) and ranks (environment.json), but does "
            f"not ({error})"
        ) from error
    if len(attempts) > 1:
        tell(f"{original} was itself started {len(attempts)} times")
    return ranks, steps


def read_kinds(text: str) -> list[str]:
    """The kinds that were asked for.

    Raises:
        SslScaleError: one is none.
    """
    kinds = text.split(",")
    for kind in kinds:
        if kind not in KINDS:
            raise SslScaleError(f"--kinds must be of {', '.join(KINDS)}, but one is {kind!r}")
    return list(dict.fromkeys(kinds))


def foretell(blows: Sequence[Blow], copied: CopiedRun) -> list[str]:
    """What would be done."""
    lines = [f"would submit {copied.folder} by: sbatch {shlex.join(copied.options)}"]
    for number, blow in enumerate(blows, 1):
        victim = f" of rank {blow.rank}" if blow.kind == "kill" else ""
        pause = f" for {blow.pause_s:.1f} s" if blow.kind == "suspend" else ""
        lines.append(f"{number}: {blow.kind}{victim}{pause}, from step {blow.step:,} on")
    return lines


def judge(comparison: Comparison, dealt: Sequence[Dealt], wanted: int) -> list[str]:
    """The lines of the verdict."""
    lines = comparison.lines()
    if len(dealt) < wanted:
        lines.append(
            f"only {len(dealt)} of {wanted} strikes hit before the run was done: it saves too "
            "seldom, or is too short, for more"
        )
    verdict = "the same, to the last bit" if comparison.is_same else "NOT the same"
    return [*lines, f"after {len(dealt)} strikes: {verdict}"]


def tell(text: str) -> None:
    """Say how it goes."""
    print(f"ssl-launch: {text}", file=sys.stderr, flush=True)

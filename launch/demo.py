"""Show the whole road on real data: shards, training, a kill, a resume, evaluation, a report.

Every step is a command that you could type; it is printed before it runs. Data is made from
scikit-learn's digits and Python's own standard library, so nothing is downloaded. Everything is
written below one folder, and a second call continues what the first left unfinished.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from .restarts import newest_step

EXAMPLES = """examples:
  ssl-launch demo
  ssl-launch demo --folder /tmp/first --processes 1
"""

DIGITS = ("train", "train_labelled", "train_captioned", "test")
ROLES = {
    "digits": "shards/digits",
    "stdlib": "shards/stdlib",
    "tokenizer": "tokenizer/tokenizer.json",
}
LOAD = (
    "import ssl_scale; from pathlib import Path; from PIL import Image; "
    "images = [Image.open(file) for file in sorted(Path('raw/digits/test').glob('*.png'))[:4]]; "
    "model = ssl_scale.load('exported'); "
    "print('features', tuple(model.encode(images).shape))"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--folder", type=Path, default=Path("demo_run"), help="default: demo_run")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="optimizer steps of each run; default: the recipes'"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run all steps; returns the exit code."""
    began = time.monotonic()
    demo = Demo(arguments.folder, arguments.processes, arguments.steps)
    demo.make_data()
    demo.train_through_a_kill()
    demo.train_baselines()
    demo.evaluate()
    demo.tell(f"done in {(time.monotonic() - began) / 60:.1f} minutes")
    demo.tell(f"report: {demo.folder / 'runs/demo/report.html'}")
    return 0


class Demo:
    """The steps, in their order.

    Args:
        folder: everything is written below it.
        processes: ranks of each run.
        steps: of each run; the recipes' own if None.
    """

    def __init__(self, folder: Path, processes: int, steps: int | None) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = processes
        self.steps = steps
        self.number = 0

    def make_data(self) -> None:
        """Raw files, then shards with index and manifest, then a tokenizer."""
        self.chapter("Raw data becomes shards")
        self.together(
            ["ssl-data", "example", "digits", "raw/digits"],
            ["ssl-data", "example", "stdlib", "raw/stdlib"],
        )
        shards = [f"digits/{part}" for part in DIGITS]
        shards += ["stdlib/train", "stdlib/test"]
        builds = [
            ["ssl-data", "build", f"raw/{part}", f"shards/{part}", "--workers=0"] for part in shards
        ]
        for pair in zip(builds[::2], builds[1::2], strict=True):
            self.together(*pair)
        texts = ["shards/stdlib/train", "shards/digits/train_captioned"]
        self.command(
            ["ssl-data", "tokenize", "train", *texts, "--vocab-size=2000", "--output=tokenizer"]
        )

    def train_through_a_kill(self) -> None:
        """Seven objectives in one run; killed half way, it loses the steps since a checkpoint."""
        self.chapter("One run, seven objectives, two processes under ZeRO-2; killed in the middle")
        run = self.folder / "runs/demo"
        if not (run / "COMPLETED").exists():
            self.kill_half_way(self.fit("demo"), run)
            saved, seen = newest_step(run), last_step(run)
            self.tell(
                f"killed (SIGKILL) after step {seen} at the least; the newest checkpoint is of "
                f"step {saved}: {seen - saved} steps are done again, nothing else is lost"
            )
        self.command(self.fit("demo"))

    def train_baselines(self) -> None:
        """What the mixture is compared with."""
        self.chapter("The rows to compare with")
        for recipe in ("demo_self_supervised", "demo_supervised"):
            self.command(self.fit(recipe))

    def evaluate(self) -> None:
        """Measure on held-out data, export, load again, and make the page."""
        self.chapter("Held-out digits and functions, three seeds")
        names = ("demo", "demo_self_supervised", "demo_supervised")
        labels = ("full mixture", "self-supervised only", "supervised only")
        self.command(
            ["ssl-scale", "evaluate", *(f"runs/{name}" for name in names)]
            + [f"--label={label}" for label in labels]
        )
        self.chapter("Export, load, report")
        self.command(["ssl-scale", "export", "runs/demo", "exported", "--force"])
        self.command([sys.executable, "-c", LOAD])
        self.command(["ssl-scale", "report", "runs/demo"])

    def fit(self, recipe: str) -> list[str]:
        """The command that starts or continues a run."""
        bindings = [*ROLES] if recipe == "demo" else ["digits"]
        command = ["ssl-launch", "local", f"--processes={self.processes}", recipe]
        command += [f"--data={role}={ROLES[role]}" for role in bindings]
        return command + ([f"--set=train.steps={self.steps}"] if self.steps else [])

    def kill_half_way(self, command: Sequence[str], run: Path) -> None:
        """Start a run and kill it once it is past the middle.

        Raises:
            SslScaleError: it failed before; it has said why.
        """
        process = self.start(command)
        try:
            while process.poll() is None and not is_past_middle(run):
                time.sleep(0.05)
            if process.returncode:
                raise failed(command, process.returncode)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def chapter(self, title: str) -> None:
        """Announce what comes."""
        self.number += 1
        self.tell(f"\n== {self.number}. {title}")

    def tell(self, text: str) -> None:
        """Print a line of our own."""
        print(text, flush=True)

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Print a command and start it in the demo's folder."""
        self.tell(f"$ {shlex.join(['python', *command[1:]] if is_python(command) else command)}")
        # Joined to a folder, an absolute path (this interpreter's) stays what it is.
        program = Path(sys.executable).parent / command[0]
        return subprocess.Popen([str(program), *command[1:]], cwd=self.folder, env=os.environ)

    def command(self, command: Sequence[str]) -> None:
        """Run a command to its end."""
        self.together(command)

    def together(self, *commands: Sequence[str]) -> None:
        """Run commands side by side, to their ends.

        Raises:
            SslScaleError: one failed; it has said why.
        """
        started = [(command, self.start(command)) for command in commands]
        for command, process in started:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                code = process.wait()
            if code:
                raise failed(command, code)


def failed(command: Sequence[str], code: int) -> SslScaleError:
    """The error of a command that should have gone well."""
    return SslScaleError(f"{shlex.join(command)} must succeed, but exited with {code}")


def is_python(command: Sequence[str]) -> bool:
    """Whether a command is this interpreter."""
    return command[0] == sys.executable


def last_step(run: Path) -> int:
    """The last step in the run's metrics."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line).get("step", 0) for line in lines if line.endswith("}")]
    return max(steps, default=0)


def is_past_middle(run: Path) -> bool:
    """Whether a run is at least one log line beyond the checkpoint nearest to its middle."""
    if not (run / "metrics.jsonl").exists():
        return False
    for commit in run.glob("checkpoints/step-*/COMMIT"):
        state = json.loads(commit.read_bytes())["state"]
        if state["done"] >= state["total"] // 2 and last_step(run) > state["done"]:
            return True
    return False

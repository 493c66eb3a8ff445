"""The demo's data and commands, for areas that measure training."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
_DIGITS = ("train", "train_labelled", "train_captioned", "test")
_STDLIB = ("train", "test")


def command(*words: str, folder: Path, module: str | None = None) -> str:
    """Run one of the project's commands, or a module; returns what it printed.

    Raises:
        RuntimeError: it failed; its own words are in the message.
    """
    program = [sys.executable, "-m", module] if module else [str(PROGRAMS / words[0])]
    done = subprocess.run(
        [*program, *(words if module else words[1:])],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)} exited with {done.returncode}: {done.stderr[-3000:]}"
        )
    return done.stdout


def make_data(folder: Path) -> None:
    """Shards and tokenizer as ``ssl-launch demo`` makes them, of fewer functions."""
    command("ssl-data", "example", "digits", "raw/digits", folder=folder)
    command("ssl-data", "example", "stdlib", "raw/stdlib", "--functions=1000", folder=folder)
    parts = [f"digits/{name}" for name in _DIGITS] + [f"stdlib/{name}" for name in _STDLIB]
    for part in parts:
        build = ("ssl-data", "build", f"raw/{part}", f"shards/{part}", "--workers=0")
        command(*build, folder=folder)
    texts = ("shards/stdlib/train", "shards/digits/train_captioned")
    tokenize = ("ssl-data", "tokenize", "train", *texts, "--vocab-size=2000", "--output=tokenizer")
    command(*tokenize, folder=folder)


def bindings(folder: Path) -> dict[str, str]:
    """Role -> path, as the demo's recipe wants them."""
    return {
        "digits": str(folder / "shards/digits"),
        "stdlib": str(folder / "shards/stdlib"),
        "tokenizer": str(folder / "tokenizer/tokenizer.json"),
    }

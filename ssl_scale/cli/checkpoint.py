"""Look after the checkpoints of a run: list, verify, compare, delete, make one model of the pieces.

Checkpoints hold what each process wrote, in pieces, with a checksum for every file. These commands
need neither DeepSpeed nor Lightning, nor the machine that trained.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ssl_scale.errors import CheckpointError

EXAMPLES = """examples:
  ssl-scale checkpoint ls runs/demo
  ssl-scale checkpoint verify runs/demo --all
  ssl-scale checkpoint diff runs/a runs/b --tolerance 1e-6
  ssl-scale checkpoint prune runs/demo --keep-last 2 --dry-run
  ssl-scale checkpoint consolidate runs/demo model
  ssl-scale checkpoint consolidate --help       all options of one of them
"""
DAMAGED = 2
DIFFERENT = 1

Act: TypeAlias = Callable[[argparse.Namespace], int]
Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _declare_ls(actions)
    _declare_verify(actions)
    _declare_diff(actions)
    _declare_prune(actions)
    _declare_consolidate(actions)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says; returns the exit code."""
    return int(arguments.act(arguments))


def _declare_ls(actions: Actions) -> None:
    parser = _action(
        actions,
        "ls",
        list_,
        "  ssl-scale checkpoint ls runs/demo\n"
        "  ssl-scale checkpoint ls runs/demo --json | jq '.checkpoints[0].step'\n",
    )
    parser.add_argument("path", type=Path, metavar="RUN", help="a run folder, or its checkpoints")
    parser.add_argument("--json", action="store_true", help="everything, for other programs")


def _declare_verify(actions: Actions) -> None:
    parser = _action(
        actions,
        "verify",
        verify,
        "  ssl-scale checkpoint verify runs/demo                   the newest\n"
        "  ssl-scale checkpoint verify runs/demo --all\n"
        "  ssl-scale checkpoint verify runs/demo/checkpoints/step-000001000\n",
    )
    parser.add_argument("path", type=Path, metavar="RUN", help="a run folder, or a checkpoint")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="which; default: the newest")
    which.add_argument("--all", action="store_true", help="every checkpoint that is there")


def _declare_diff(actions: Actions) -> None:
    parser = _action(
        actions,
        "diff",
        diff,
        "  ssl-scale checkpoint diff runs/a runs/b\n"
        "  ssl-scale checkpoint diff runs/a runs/b --step 1000 --tolerance 1e-6\n"
        "  ssl-scale checkpoint diff runs/a/checkpoints/step-000000{100,200}\n",
    )
    for name in ("first", "second"):
        parser.add_argument(name, type=Path, metavar="RUN", help="a run folder, or a checkpoint")
    parser.add_argument("--step", type=int, metavar="N", help="of both; default: the newest")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="tensors nowhere further apart than this are the same; default: 0",
    )
    parser.add_argument(
        "--lines", type=int, default=20, metavar="N", help="of each kind at most; default: 20"
    )


def _declare_prune(actions: Actions) -> None:
    parser = _action(
        actions,
        "prune",
        prune,
        "  ssl-scale checkpoint prune runs/demo --keep-last 2 --dry-run\n"
        "  ssl-scale checkpoint prune runs/demo --keep-last 1 --keep-every 10000\n"
        "  ssl-scale checkpoint prune runs/demo --keep-last 3 --leftovers\n",
    )
    parser.add_argument("path", type=Path, metavar="RUN", help="a run folder, or its checkpoints")
    parser.add_argument(
        "--keep-last", type=_count, required=True, metavar="N", help="the newest N stay"
    )
    parser.add_argument(
        "--keep-every", type=_count, default=0, metavar="M", help="multiples of M steps stay too"
    )
    parser.add_argument("--dry-run", action="store_true", help="say it, delete nothing")
    parser.add_argument(
        "--leftovers", action="store_true", help="delete what dead attempts left, too"
    )


def _declare_consolidate(actions: Actions) -> None:
    parser = _action(
        actions,
        "consolidate",
        consolidate,
        "  ssl-scale checkpoint consolidate runs/demo model\n"
        "  ssl-scale checkpoint consolidate runs/demo model --teacher ema --parts encoders.image\n"
        "  ssl-scale checkpoint consolidate runs/demo model --dtype bf16 --max-shard-size 2GB\n",
    )
    parser.add_argument("path", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("output", type=Path, metavar="FOLDER", help="is written")
    parser.add_argument("--step", type=int, metavar="N", help="which; default: the newest")
    parser.add_argument("--teacher", metavar="NAME", help="a teacher's copies, not the student's")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument(
        "--max-shard-size",
        type=parse_size,
        default=parse_size("5GB"),
        metavar="SIZE",
        help="of one file, like 500MB; default: 5GB",
    )
    parser.add_argument(
        "--parts",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="only these, like encoders.image,heads.shared; default: all",
    )
    parser.add_argument("--force", action="store_true", help="replace a model that is there")


def list_(arguments: argparse.Namespace) -> int:
    """List a run's checkpoints, newest first.

    Sizes and COMMIT are looked at, not the bytes: `verify` does that. `best` is the best step by
    train.best, `for good` one that train.keep_every keeps.
    """
    from ssl_scale.checkpoint.finding import checkpoints_of
    from ssl_scale.checkpoint.listing import list_checkpoints
    from ssl_scale.cli.checkpoint_tables import draw_listing

    listing = list_checkpoints(checkpoints_of(arguments.path))
    if arguments.json:
        sys.stdout.write(json.dumps(listing.to_dict(), indent=1) + "\n")
    else:
        sys.stdout.write(draw_listing(listing))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Compare every byte of a checkpoint with its checksum.

    Also looks whether the pieces of all processes meet without gap or overlap. Names each damaged
    file and exits with 2 if there is one.
    """
    from ssl_scale.checkpoint import layout
    from ssl_scale.checkpoint.finding import (
        checkpoints_of,
        is_checkpoint_name,
        named_checkpoint,
    )
    from ssl_scale.checkpoint.verification import verify as verify_one
    from ssl_scale.cli.checkpoint_tables import ReadingProgress, draw_verdict

    if arguments.all and not is_checkpoint_name(arguments.path):
        folders = list(layout.candidates(checkpoints_of(arguments.path)))
        if not folders:
            raise CheckpointError(f"{arguments.path} must hold a checkpoint, but holds none")
    else:
        folders = [named_checkpoint(arguments.path, arguments.step)]
    are_sound = True
    for folder in folders:
        progress = ReadingProgress(folder)
        verdict = verify_one(folder, progress)
        sys.stdout.write(draw_verdict(verdict, progress.finish()))
        are_sound &= verdict.is_sound
    return 0 if are_sound else DAMAGED


def diff(arguments: argparse.Namespace) -> int:
    """Tell in what two checkpoints differ.

    Compares counters and all tensors by name, also where other numbers of processes or ZeRO stages
    wrote them; worst first, by the difference over the largest value. Like diff(1) it exits with 0
    if they are the same, 1 if they differ, 2 if there is trouble.
    """
    from ssl_scale.checkpoint.difference import compare
    from ssl_scale.checkpoint.finding import find_checkpoint
    from ssl_scale.checkpoint.reader import Reader
    from ssl_scale.cli.checkpoint_tables import draw_difference

    first, second = (
        Reader(find_checkpoint(path, arguments.step))
        for path in (arguments.first, arguments.second)
    )
    difference = compare(first, second, arguments.tolerance)
    sys.stdout.write(draw_difference(first, second, difference, max(arguments.lines, 1)))
    return 0 if difference.is_none else DIFFERENT


def prune(arguments: argparse.Namespace) -> int:
    """Delete old checkpoints.

    Says of each whether it goes or stays, and why. The newest whose bytes verify stays in any case,
    and so does the best. What is not whole stays too. While the run trains, nothing is deleted.
    """
    from ssl_scale.checkpoint.finding import checkpoints_of
    from ssl_scale.checkpoint.pruning import carry_out, decide
    from ssl_scale.cli.checkpoint_tables import draw_decisions
    from ssl_scale.train.lease.hold import hold

    checkpoints = checkpoints_of(arguments.path)
    wanted = (arguments.keep_last, arguments.keep_every, arguments.leftovers)
    if arguments.dry_run:
        sys.stdout.write(draw_decisions(decide(checkpoints, *wanted), dry_run=True))
        return 0
    with hold(checkpoints.absolute().parent, lambda text: print(text, file=sys.stderr)):
        decisions = decide(checkpoints, *wanted)
        sys.stdout.write(draw_decisions(decisions, dry_run=False))
        carry_out(decisions)
    return 0


def consolidate(arguments: argparse.Namespace) -> int:
    """Make one model of the pieces, as safetensors.

    Writes whole parameters and buffers under their names in the system, with config.json (the
    recipe, the step), and for every encoder that has an equivalent in transformers a folder that
    AutoModel.from_pretrained loads. One output file is in memory at a time. For ssl_scale.load,
    which also knows how inputs are made, use `ssl-scale export`.
    """
    from ssl_scale.train.consolidate import consolidate as write_whole

    written = write_whole(
        arguments.path,
        arguments.output,
        step=arguments.step,
        teacher=arguments.teacher,
        dtype=arguments.dtype,
        max_shard_bytes=arguments.max_shard_size,
        parts=arguments.parts,
        force=arguments.force,
    )
    sys.stdout.write("".join(f"{line}\n" for line in written.lines()))
    return 0


def parse_size(text: str) -> int:
    """Bytes: ``5GB`` is five thousand million, as elsewhere in the field."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"must be a size like 500MB or 5GB, but is {text!r}")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but is {text!r}")
    return count


def _action(
    actions: Actions,
    name: str,
    act: Act,
    examples: str,
) -> argparse.ArgumentParser:
    """Declare an action, described by the docstring of the function that does it."""
    description = inspect.cleandoc(act.__doc__ or "")
    summary = description.partition("\n")[0].rstrip(".")
    parser = actions.add_parser(
        name,
        help=f"{summary[0].lower()}{summary[1:]}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,  # else it would take back what stands before the action
        help="show tracebacks of errors",
    )
    parser.set_defaults(act=act)
    return parser

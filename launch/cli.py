"""``ssl-launch``: every module of this package with `add_arguments` and `run` is a subcommand.

A subcommand is named like its module, described by the module's docstring and shows the module's
`EXAMPLES` at the end of its help. Nothing here imports torch, so that help answers at once.
"""

import argparse
import importlib
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from ssl_scale.errors import SslScaleError

EXAMPLES = """examples:
  ssl-launch local demo                      pretrain on every GPU of this machine, or on the CPU
  ssl-launch local --processes 2 demo        two processes
  ssl-launch local --help                    all options, and what is passed on to ssl-scale fit
  ssl-launch submit demo --nodes 2 --gpus 8 --time 24:00:00
  ssl-launch status runs/demo                how a run fares
  ssl-launch list                            all runs, the newest first
"""


def subcommands() -> dict[str, ModuleType]:
    """Subcommand name -> module."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    names = sorted(entry.name for entry in pkgutil.iter_modules(folder) if entry.name != "cli")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    return {
        name: module
        for name, module in modules.items()
        if hasattr(module, "add_arguments") and hasattr(module, "run")
    }


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="ssl-launch",
        description="Start runs, on this machine or on a Slurm cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in subcommands().items():
        summary, _, rest = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{rest.rstrip()}",
            epilog=getattr(module, "EXAMPLES", ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        module.add_arguments(command)
        command.set_defaults(module=module, passes_on_after=getattr(module, "PASSES_ON_AFTER", ""))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    commands = parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What follows -- is passed on; argparse would take it for further positional arguments.
    passes_on = any(hasattr(subcommands().get(word), "PASSES_ON_AFTER") for word in given[:1])
    own = given[: given.index("--")] if passes_on and "--" in given else given
    parsed, unknown = commands.parse_known_args(own)
    unknown += given[len(own) :]
    if unknown and not parsed.passes_on_after:
        commands.error(f"unrecognized arguments: {' '.join(unknown)}")
    # Before the positional argument, the value of an unknown option would be mistaken for it.
    if unknown and given.index(unknown[0]) < given.index(first_of(parsed)):
        name = parsed.passes_on_after.upper()
        commands.error(f"{unknown[0]} is passed on and must come after {name}, but comes before it")
    parsed.others = unknown
    try:
        code = int(parsed.module.run(parsed) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads what we print has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SslScaleError as error:
        if parsed.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def first_of(parsed: argparse.Namespace) -> str:
    """The positional argument, or the first of several, after which others are passed on."""
    given = getattr(parsed, parsed.passes_on_after)
    return str(given[0] if isinstance(given, list) else given)


if __name__ == "__main__":
    sys.exit(main())

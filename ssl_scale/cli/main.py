"""``ssl-scale``: every module of this package with `add_arguments` and `run` is a subcommand.

A subcommand is named like its module (a hyphen for an underscore), described by the module's
docstring and shows the module's `EXAMPLES` at the end of its help. Subcommands import what is heavy
inside `run`, so that help answers at once: neither torch nor Lightning nor pydantic is imported to
read a command line.
"""

import argparse
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from ssl_scale import __version__, cli
from ssl_scale.errors import SslScaleError, exit_code_of

INTERRUPTED = 130
BROKEN_PIPE = 141
EXAMPLES = """examples:
  ssl-scale check vision/simclr              is the recipe right, is its data bound
  ssl-scale fit demo --data digits=/data/d   pretrain in this process (several: ssl-launch local)
  ssl-scale report runs/demo                 one HTML page about a run
  ssl-scale fit --help                       all options of a command
"""


def subcommands() -> dict[str, ModuleType]:
    """Subcommand name -> module."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(cli.__path__))
    modules = {
        name: importlib.import_module(f"{cli.__name__}.{name}") for name in names if name != "main"
    }
    return {
        name.replace("_", "-"): module for name, module in modules.items() if hasattr(module, "run")
    }


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="ssl-scale",
        description="Pretrain models by recipes: check, train, evaluate, export, report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ssl-scale {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in subcommands().items():
        summary, _, rest = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{rest.rstrip()}",
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed) or 0)
        sys.stdout.flush()
    except SslScaleError as error:
        if parsed.debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return exit_code_of(error)
    except KeyboardInterrupt:
        if parsed.debug:
            traceback.print_exc()
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    sys.exit(main())

"""The ``ssl-data`` command: a subcommand for every ``command_*.py`` of this room.

Such a module has ``NAME``, ``SUMMARY``, ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args)``.
It imports what is heavy inside `run`, so that ``--help`` is instant.
"""

import argparse
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ssl_scale import __version__
from ssl_scale.errors import SslScaleError

EXAMPLES = """\
examples:
  ssl-data example digits raw/digits
  ssl-data build raw/digits/train shards/digits --shard-size 500
  ssl-data index downloaded-shards/
  ssl-data tokenize train shards/stdlib_train --vocab-size 2000 --output shards/tokenizer

`ssl-data COMMAND --help` says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = make_parser().parse_args(arguments)
    debug = getattr(args, "debug", False)
    try:
        args.run(args)
    except KeyboardInterrupt:
        return _fail("interrupted; give the same command again to go on", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left, which is no error
        return 141
    except SslScaleError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), 2)
    except Exception as error:  # a fault of ours, said as such
        if debug:
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        return _fail(f"internal error ({what}); --debug shows where it arose", 1)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="ssl-data",
        description="Turn raw folders, tables and archives into curated shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ssl-data {__version__}")
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for module in _command_modules():
        command = commands.add_parser(
            module.NAME,
            help=module.SUMMARY,
            description=f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}.",
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[debug],
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _command_modules() -> list[ModuleType]:
    names = sorted(
        found.name
        for found in pkgutil.iter_modules([str(Path(__file__).parent)])
        if found.name.startswith("command_")
    )
    return [importlib.import_module(f".{name}", __package__) for name in names]


def _fail(message: str, code: int) -> int:
    # A file name may hold line breaks, bytes that are not UTF-8 and commands to the terminal.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    sys.stderr.write(f"error: {shown}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

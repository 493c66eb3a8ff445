"""Write one self-contained HTML page about a run: curves, tables, pictures."""

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  ssl-scale report runs/demo
  ssl-scale report runs/demo --output demo.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--output", type=Path, metavar="F", help="default: report.html in the run folder"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    from ssl_scale.report.page import write_report

    sys.stdout.write(f"{write_report(arguments.run_folder, arguments.output)}\n")
    return 0

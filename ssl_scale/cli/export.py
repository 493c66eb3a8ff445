"""Write a run's encoders as safetensors with a config, for ssl_scale.load(folder)."""

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  ssl-scale export runs/demo exported
  ssl-scale export runs/demo exported --step 1000 --force
  ssl-scale export runs/demo exported --teacher ema
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("output", type=Path, metavar="FOLDER", help="is written")
    parser.add_argument(
        "--step", type=int, metavar="N", help="checkpoint to export; default: the newest"
    )
    parser.add_argument("--teacher", metavar="NAME", help="export a teacher, not the student")
    parser.add_argument("--force", action="store_true", help="replace an export that is there")


def run(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from ssl_scale.train.export import export

    export(
        arguments.run_folder,
        arguments.output,
        step=arguments.step,
        teacher=arguments.teacher,
        force=arguments.force,
    )
    sys.stdout.write(f"{arguments.output}\n")
    return 0

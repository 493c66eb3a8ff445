"""Print the JSON Schema of recipes, for editors.

With it an editor completes names of parts and arguments, shows what they mean and marks what is
wrong while you type. It knows the parts that are installed; whether the names that a recipe refers
to exist, only `ssl-scale check` tells.
"""

import argparse
import json
import sys
from pathlib import Path

EXAMPLES = """examples:
  ssl-scale schema > recipe.schema.json
  ssl-scale schema --output .vscode/recipe.schema.json

then, as the first line of a recipe (VS Code with the YAML extension, Neovim, JetBrains):
  # yaml-language-server: $schema=recipe.schema.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")


def run(arguments: argparse.Namespace) -> int:
    """Print; returns the exit code."""
    from ssl_scale.recipe.schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1) + "\n"
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    return 0

"""Tell what a recipe will cost before it is paid: parameters, memory, operations, hours.

Nothing is allocated and no GPU is needed: the parts are built without values, and a step runs on
shapes. Memory is that of the fullest rank under each ZeRO stage, the recipe's own marked with *;
activations are what autograd keeps of one micro-batch. Texts count as long as they may be. The time
is that of the operations at the stated share of the GPUs' peak, without loading and saving.

Data need not be bound, unless they decide sizes: the vocabulary (--vocab-size, or bind the
tokenizer), the steps of a recipe that counts epochs.
"""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from ssl_scale.cli.options import add_overrides, add_variants, read_recipe_of, variants

if TYPE_CHECKING:
    from ssl_scale.plan.gpus import GPU
    from ssl_scale.plan.plan import Plan

EXAMPLES = """examples:
  ssl-scale plan vision/mae --nodes 1 --gpus 8
  ssl-scale plan text/bert --gpus 8 --vocab-size 30522 --gpu-type a100 --hours-limit 24
  ssl-scale plan vision/dinov2 --nodes 8 --gpus 8 --gpu-memory 40GiB --set train.zero=3 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name or file, or a run folder")
    add_overrides(parser)
    add_variants(parser)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines; default 1")
    parser.add_argument("--gpus", type=int, default=1, metavar="G", help="of each; default 1")
    parser.add_argument(
        "--gpu-type",
        default="h100",
        metavar="TYPE",
        help="gives peak and memory: a100, h100 (default), h200, l40s, mi300x",
    )
    parser.add_argument("--gpu-memory", metavar="SIZE", help="of a GPU, such as 80GB or 40GiB")
    parser.add_argument(
        "--peak-tflops", type=float, metavar="X", help="of a GPU, dense, in the recipe's precision"
    )
    parser.add_argument(
        "--mfu", type=float, default=0.35, metavar="X", help="reached share of it; default 0.35"
    )
    parser.add_argument("--hours-limit", type=float, metavar="H", help="hours that it may take")
    parser.add_argument("--vocab-size", type=int, metavar="N", help="tokens that texts are made of")
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Plan and print; returns the exit code."""
    from ssl_scale.errors import SslScaleError
    from ssl_scale.plan.gpus import GPUS
    from ssl_scale.plan.table import draw

    kind = GPUS.get(arguments.gpu_type)
    if kind is None:
        raise SslScaleError(
            f"--gpu-type must be one of {', '.join(GPUS)}, but is {arguments.gpu_type!r}; of "
            "another, give --gpu-memory and --peak-tflops"
        )
    if arguments.variants is not None:
        plans = [_as_data(_plan(each, kind)) for each in variants(arguments)]
        sys.stdout.write(json.dumps(plans) + "\n")
        return 0
    plan = _plan(arguments, kind)
    if arguments.json:
        sys.stdout.write(json.dumps(_as_data(plan)) + "\n")
    else:
        sys.stdout.write(draw(plan, arguments.hours_limit))
    return 0


def _plan(arguments: argparse.Namespace, kind: "GPU") -> "Plan":
    from ssl_scale.plan.gpus import read_bytes
    from ssl_scale.plan.plan import Machines, make_plan

    recipe = read_recipe_of(arguments, arguments.recipe, require_data=False)
    machines = Machines.of(
        arguments.nodes,
        arguments.gpus,
        kind,
        recipe.train.precision,
        arguments.mfu,
        None if arguments.gpu_memory is None else read_bytes(arguments.gpu_memory),
        arguments.peak_tflops,
    )
    return make_plan(recipe, machines, arguments.vocab_size)


def _as_data(plan: "Plan") -> dict[str, Any]:
    totals = {stage: rank.total for stage, rank in plan.ranks.items()}
    return {**dataclasses.asdict(plan), "rank_totals": totals}

"""Try a loss of your own against the engine's contract, on synthetic data.

The loss and its gradient must be the same however a batch is cut over processes, must not notice
absent samples, and so on; each is tried in float64 with small encoders and printed as a row of a
table: relative errors of loss and gradient, and what that means. The last line is EXACT, or DIFFERS
with how many rows and by how much at most. Only the module that you name is imported, nothing else
of yours is run.

The loss reads what it names of this world (required arguments that you leave out are filled in):
  encoders  image, text                       (8 features)
  views     image, crops (2), local (3 crops), text = words
  masks     patches (of image), blocks and targets (of crops), words (of words)
  fields    label (5 classes, -1 unknown), tags (5 x 0, 1, -1 unknown)
  teachers  ema

Exit code 1 means that the contract is broken; 2 that the loss cannot be loaded, built or run.
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_scale.verify.finding import Finding

EXAMPLES = """example:
  # my_losses.py, in this folder
  from ssl_scale.objectives.objective import Objective, blank, full_precision
  from ssl_scale.part import EncoderName, ViewName
  from ssl_scale.types import Loss

  class Agree(Objective):
      def __init__(self, encoder: EncoderName, view: ViewName | None = None) -> None:
          super().__init__()
          self.encoder, self.view = encoder, view
      def count(self, step):
          return step.view(self.view or self.encoder).present.all(1).sum()
      def forward(self, step):
          view = step.view(self.view or self.encoder)
          crops = full_precision(step.student(self.encoder, self.view).pooled)
          crops = blank(crops, view.present.all(1, keepdim=True).expand(crops.shape[:2]))
          return Loss((crops[:, 0] - crops[:, 1]).square().sum())

examples:
  ssl-scale verify-loss my_losses:Agree --set view=crops
  ssl-scale verify-loss NTXent --set view=crops --set temperature=0.2
  ssl-scale verify-loss BYOL --set view=crops \\
      --set 'projector={type: MLPProjector, hidden: 16, out: 8}'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "objective", metavar="OBJECTIVE", help="package.module:Class, or a class of ours"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of its constructor, in YAML notation; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Verify and print; returns the exit code."""
    from ssl_scale.verify.finding import table
    from ssl_scale.verify.loading import with_settings
    from ssl_scale.verify.verify import verify

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: a file here hides no package
    findings = verify(with_settings(arguments.objective, arguments.set))
    faults = [finding for finding in findings if finding.is_fault]
    sys.stdout.write(f"{table(findings)}\n")
    if not faults:
        sys.stdout.write("EXACT\n")
        return 0
    sys.stdout.write(f"DIFFERS in {len(faults)} of {len(findings)} checks{_worst(faults)}\n")
    return 1


def _worst(faults: "list[Finding]") -> str:
    """By how much, where that was measured."""
    errors = {
        error: fault.check
        for fault in faults
        for error in (fault.value, fault.gradient)
        if error is not None
    }
    return f", most by {max(errors):.1e} in: {errors[max(errors)]}" if errors else ""

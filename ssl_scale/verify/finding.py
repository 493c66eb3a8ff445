"""What a check found, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ssl_scale.verify.training import Outcome

# Of float64: sums in another order differ by less, whatever is wrong differs by more.
EXACT = 1e-9

Result = Literal["exact", "ok", "declared", "note", "differs", "fails"]


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Args:
        check: what was looked at.
        result: ``exact`` and ``ok`` are what must be; ``declared`` is a limit that the objective
            states itself; a ``note`` is for the reader to judge; the others are faults.
        value: relative error of the loss; None where nothing was compared.
        gradient: relative error of the worst parameter's gradient.
        told: anything more, such as where it differs.
    """

    check: str
    result: Result
    value: float | None = None
    gradient: float | None = None
    told: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the contract is broken."""
        return self.result in ("differs", "fails")


def compare(check: str, found: Outcome, wanted: Outcome, buffers: bool = True) -> Finding:
    """Two outcomes that must be one."""
    value = _relative(found.value, wanted.value, 0.0)
    whole = torch.cat([gradient.flatten() for gradient in wanted.gradients.values()]).norm()
    errors = {
        # A gradient that is zero in exact arithmetic (a key's bias) is noise, and compared to all.
        path: _relative(found.gradients[path], gradient, 0.01 * float(whole))
        for path, gradient in wanted.gradients.items()
    }
    path = max(errors, key=lambda name: errors[name])
    kept = {
        f"buffer {name}": _relative(found.buffers[name], buffer, 1e-12)
        for name, buffer in wanted.buffers.items()
        if buffers
    }
    worst = max(kept, key=lambda name: kept[name], default="")
    wrong = []
    if value > EXACT:
        wrong.append(f"the loss is {float(found.value):.6g} instead of {float(wanted.value):.6g}")
    if errors[path] > EXACT:
        wrong.append(f"the gradient of {path} differs most")
    if worst and kept[worst] > EXACT:
        wrong.append(f"the {worst} differs by {kept[worst]:.1e}")
    if wrong and max(value, errors[path], kept.get(worst, 0.0)) < 1e-5:
        wrong.append("so little that something may be cast to fp32")
    result: Result = "differs" if wrong else "exact"
    return Finding(check, result, value, errors[path], "; ".join(wrong))


def _relative(found: torch.Tensor, wanted: torch.Tensor, least: float) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.double(), wanted.double()
    size = max(float(wanted.norm()), least)
    error = float((found - wanted).norm())
    if error != error:
        return float("inf")
    return error / size if size else float("inf") if error else 0.0


def table(findings: Sequence[Finding]) -> str:
    """One line a finding."""
    rows = [("check", "value", "gradient", "result")]
    rows += [
        (
            finding.check,
            _error(finding.value),
            _error(finding.gradient),
            f"{finding.result}{': ' if finding.told else ''}{finding.told}",
        )
        for finding in findings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{check:<{widths[0]}}  {value:>{widths[1]}}  {gradient:>{widths[2]}}  {result}"
        for check, value, gradient, result in rows
    )


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}" if error else "0"

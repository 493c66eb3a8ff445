"""All checks of one objective, in one process and in several."""

from collections.abc import Sequence

from ssl_scale import dist
from ssl_scale.errors import RecipeError
from ssl_scale.verify.checks import on_one_process, outcome, plain
from ssl_scale.verify.finding import Finding, compare
from ssl_scale.verify.loading import Choice
from ssl_scale.verify.ranks import RankFailure, RanksHang, run_ranks
from ssl_scale.verify.training import Outcome

# Samples 2, 6 and 10 lack the image, 3 and 8 the text; 1, 4, 7 and 10 the label.
SPLITS: dict[str, list[list[int]]] = {
    "2 processes, unequal counts": [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12]],
    "2 processes, one has nothing": [[0, 1, 4, 5, 7, 9, 11, 12], [2, 6, 10]],
    "2 processes, the first is empty": [[], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    "4 processes": [[0, 1, 2, 3, 4], [5], [6], [7, 8, 9, 10, 11, 12]],
    "4 processes, a last batch of 6": [[0, 1], [4, 5], [9, 12], []],
}


def verify(choice: Choice, limit_s: float = 40.0) -> list[Finding]:
    """Look at an objective from all sides; what breaks all else is found first, and alone.

    Args:
        choice: one that can be built.
        limit_s: how long processes may wait for each other.

    Raises:
        RecipeError: it cannot even run once with these settings.
    """
    try:
        [first] = run_ranks(plain, 1, choice)
    except RankFailure as failure:
        raise RecipeError(f"{choice.name} cannot run with these settings: {failure}") from failure
    if first.is_fault:
        return [first]
    findings: list[Finding] = [first]
    [(more, wanted)] = run_ranks(on_one_process, 1, choice, list(SPLITS.values()))
    findings += more
    for (name, split), whole in zip(SPLITS.items(), wanted, strict=True):
        try:
            findings.append(_on_ranks(choice, name, split, whole, limit_s))
        except RanksHang as failure:
            return [*findings, Finding(name, "fails", told=f"{failure}; nothing more was tried")]
        except RankFailure as failure:
            findings.append(Finding(name, "fails", told=str(failure)))
    return findings


def _on_ranks(
    choice: Choice, name: str, split: Sequence[Sequence[int]], whole: Outcome, limit_s: float
) -> Finding:
    """The worst of what the ranks find."""
    outcomes = run_ranks(on_a_rank, len(split), choice, split, limit_s=limit_s)
    found = [compare(name, each, whole) for each in outcomes]
    return max(found, key=lambda each: (each.is_fault, each.value or 0, each.gradient or 0))


def on_a_rank(choice: Choice, split: Sequence[Sequence[int]]) -> Outcome:
    """This rank's share of a split."""
    return outcome(choice, split[dist.rank()])

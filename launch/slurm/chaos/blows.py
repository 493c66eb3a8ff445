"""Which blows a run is dealt, when, and what each of them did to it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

# Of a run's steps: a blow that is due later could find it done.
LATEST = 0.9


@dataclass(frozen=True)
class Blow:
    """A blow that is to come.

    Args:
        kind: one of `strikes.KINDS`.
        rank: the victim, where there is one.
        step: not before the run has done so many.
        moment: where between that step's record and the next, from 0 to 1.
        pause_s: how long stopped ranks stay so.
    """

    kind: str
    rank: int
    step: int
    moment: float
    pause_s: float


@dataclass(frozen=True)
class Dealt:
    """What a blow did.

    Args:
        kind: of the blow.
        victim: who was hit, in words.
        step: that the run had done.
        again_s: seconds until it did a step that it had not been doing then.
        redone: steps that were done again.
    """

    kind: str
    victim: str
    step: int
    again_s: float
    redone: int


def draw(
    chance: random.Random, count: int, kinds: Sequence[str], ranks: int, steps: int, pause_s: float
) -> list[Blow]:
    """Draw blows for a run: the kinds in turn, each time shuffled; one in each stretch of steps.

    Args:
        chance: decides; the same chance draws the same blows.
        count: of blows.
        kinds: to draw from.
        ranks: of the run.
        steps: of the run.
        pause_s: the longest that ranks are stopped.
    """
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += chance.sample(kinds, len(kinds))
    return [
        Blow(
            kind,
            chance.randrange(ranks),
            int((number + chance.random()) / count * LATEST * steps),
            chance.random(),
            chance.uniform(pause_s / 2, pause_s),
        )
        for number, kind in enumerate(drawn[:count])
    ]


def draw_table(dealt: Sequence[Dealt]) -> list[str]:
    """The lines of a table with a row for every blow."""
    head = ("", "kind", "step", "again after", "steps redone", "victim")
    rows = [
        (
            str(number),
            one.kind,
            f"{one.step:,}",
            f"{one.again_s:.1f} s",
            str(one.redone),
            one.victim,
        )
        for number, one in enumerate(dealt, 1)
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in (1, 5) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]

"""How often each source was drawn before a draw: turns, laid end to end as weights and sources go.

A new piece begins where the weights change or a source ends. Inside a piece shares are constant and
every count is within one of its due; what rounding left a source owing is made good in the next
piece, so the counts never drift from the weights. Pieces are worked out from the first one on, a
hundred or so for a whole run, and finding one takes a bisection: there is no state.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Literal

from ssl_scale.data.mixture.shares import LONGEST_PERIOD, split, whole_shares
from ssl_scale.data.mixture.stretches import Stretch, Weights
from ssl_scale.data.mixture.turns import Turns


@dataclass(frozen=True)
class Ending:
    """A source that ends.

    Args:
        kind: ``stop`` ends the run; ``drop`` leaves the other sources to go on with their weights.
        count: what there is to draw.
    """

    kind: Literal["stop", "drop"]
    count: int


@dataclass(frozen=True)
class Piece:
    """Draws with constant shares.

    Args:
        start: the first draw.
        counts: how often each source was drawn before it.
        shares: of the sources that are drawn, above 0.
        owed: draws that rounding left each source owing before it.
    """

    start: int
    counts: Mapping[str, int]
    shares: Mapping[str, int]
    owed: Mapping[str, Fraction]


class Timeline:
    """The draws of a run.

    Args:
        weights: of the sources.
        endings: of those that end; the others go on without end.
        seed: decides who goes first where the weights leave it open.
        owed: draws that rounding left each source owing before the first one here.
    """

    def __init__(
        self,
        weights: Weights,
        endings: Mapping[str, Ending],
        seed: int,
        owed: Mapping[str, Fraction] | None = None,
    ) -> None:
        self.weights, self.endings, self.seed = weights, dict(endings), seed
        self._pieces: list[Piece] = []
        self._is_whole = False
        self._end: int | None = None
        # Where the next piece begins.
        self._draw = 0
        self._counts = dict.fromkeys(weights.names, 0)
        self._owed = {name: (owed or {}).get(name, Fraction(0)) for name in weights.names}
        self._gone: set[str] = set()
        self._stretch, self._done = 0, 0

    def before(self, draw: int) -> dict[str, int]:
        """How often each source was drawn before a draw; as at the end for draws beyond it."""
        while not self._is_whole and draw > self._draw:
            self._extend()
        if self._end is not None:
            draw = min(draw, self._end)
        piece = self._piece(draw)
        return dict(self._counts) if piece is None else self._count(piece, draw)

    def owed(self, draw: int) -> dict[str, Fraction]:
        """Draws that each source has coming from before a draw, at which a piece begins."""
        self.before(draw)
        piece = self._piece(draw)
        if piece is None or draw == self._draw:
            return dict(self._owed)
        assert draw == piece.start, f"draw {draw} must be the first of a piece, not {piece.start}"
        return dict(piece.owed)

    @property
    def end(self) -> int | None:
        """The first draw that there is nothing for; None where there is none.

        Every stretch of weights is asked for, unless no source ends.
        """
        while self.endings and not self._is_whole:
            self._extend()
        return self._end

    def _piece(self, draw: int) -> Piece | None:
        """The piece that a draw is in, or that ends before it; None before the first."""
        place = bisect_right(self._pieces, draw, key=lambda piece: piece.start) - 1
        return self._pieces[place] if place >= 0 else None

    def _count(self, piece: Piece, draw: int) -> dict[str, int]:
        given = Turns(tuple(piece.shares.values()), self.seed).before(draw - piece.start)
        new = dict(zip(piece.shares, given.tolist(), strict=True))
        return {name: count + new.get(name, 0) for name, count in piece.counts.items()}

    def _extend(self) -> None:
        """Work out the next piece: up to the end of its stretch, or of a source."""
        stretch = self.weights.stretch(self._stretch)
        left = None if stretch.length is None else stretch.length - self._done
        weights = {
            name: Fraction(str(weight))
            for name, weight in stretch.weights.items()
            if weight > 0 and name not in self._gone
        }
        if not weights:
            self._finish(self._draw)
            return
        shares = self._shares(stretch, weights, left)
        piece = Piece(self._draw, dict(self._counts), shares, dict(self._owed))
        length, ended = self._first_end(piece, left)
        if length != 0:
            self._pieces.append(piece)
        if any(self.endings[name].kind == "stop" for name in ended):
            assert length is not None
            self._finish(self._draw + length)
        elif length is None:
            self._is_whole = True
        else:
            self._pass(piece, length, weights, is_cut=bool(ended))
            self._gone.update(ended)
            self._done += length
            if left == length:
                self._stretch, self._done = self._stretch + 1, 0

    def _pass(
        self, piece: Piece, length: int, weights: Mapping[str, Fraction], is_cut: bool
    ) -> None:
        """Go to the end of a piece."""
        self._draw += length
        after = self._count(piece, self._draw)
        whole = sum(weights.values())
        for name in self._owed:
            if is_cut:  # the others' dues begin anew
                self._owed[name] = Fraction(0)
            else:
                due = length * weights.get(name, Fraction(0)) / whole
                self._owed[name] += due - (after[name] - self._counts[name])
        self._counts = after

    def _finish(self, end: int) -> None:
        self._is_whole, self._end = True, end

    def _shares(
        self, stretch: Stretch, weights: Mapping[str, Fraction], left: int | None
    ) -> dict[str, int]:
        """Whole shares; where the stretch ends, with what earlier ones left owing."""
        if left is None:
            return whole_shares({name: stretch.weights[name] for name in weights})
        whole = sum(weights.values())
        due = {
            name: max(left * weight / whole + self._owed[name], Fraction(0))
            for name, weight in weights.items()
        }
        parts = split(due, min(left, LONGEST_PERIOD))
        parts = {name: part for name, part in parts.items() if part}
        divisor = gcd(*parts.values())
        return {name: part // divisor for name, part in parts.items()}

    def _first_end(self, piece: Piece, left: int | None) -> tuple[int | None, list[str]]:
        """The piece's length, and the sources whose end makes it shorter than what is left."""
        turns = Turns(tuple(piece.shares.values()), self.seed)
        ends: dict[str, int] = {}
        for place, (name, share) in enumerate(piece.shares.items()):
            if name not in self.endings:
                continue
            unit = max(self.endings[name].count - piece.counts[name], 0)
            # Within one of its due: far from the end there is no need to look it up.
            if left is None or unit <= left * share // turns.period + 1:
                ends[name] = turns.when(place, unit)
        first = min(ends.values(), default=None)
        if first is None or (left is not None and first >= left):
            return left, []
        return first, [name for name, end in ends.items() if end == first]

"""Samples that do not decode: tolerated up to a share, logged with their substitutes, replayed.

Which sample took a bad one's place is part of what a run saw. So each pair is a line of
``quarantine/rank-R.jsonl``, and a run that resumes reads the lines back: the same substitute comes
again, even if the bad sample has been mended meanwhile.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl_scale.errors import DataError

# A share of very few samples says nothing: this many may be bad before it is looked at.
_FEW = 8


class Quarantine:
    """The bad samples of one process.

    Args:
        share: tolerated share of a source's samples; 0 stops at the first.
        folder: of the logs; None keeps none.
        rank: of this process.
    """

    def __init__(self, share: float = 0.0, folder: Path | None = None, rank: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"bad_samples must be in [0, 1], but is {share}")
        self.share, self.folder, self.rank = share, folder, rank
        self._read: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()
        self._known: dict[tuple[str, str, int], int | None] = {}
        if folder is not None:
            self._known = _substitutes(folder.glob("rank-*.jsonl"))

    @property
    def bad(self) -> int:
        """How many bad samples this process met."""
        return self._bad.total()

    def count(self, source: str, samples: int) -> None:
        """Note that samples are asked for."""
        self._read[source] += samples

    def substitutes(
        self, source: str, fingerprint: str, positions: Sequence[int]
    ) -> dict[int, int]:
        """Those of the positions whose place another one took before, and which."""
        if not self._known:
            return {}
        found = {each: self._known.get((source, fingerprint, each)) for each in positions}
        return {each: other for each, other in found.items() if other is not None}

    def refuse(self, error: DataError, source: str) -> None:
        """Count a bad sample, and stop if there are too many.

        Raises:
            DataError: bad samples are not tolerated, or past their share.
        """
        if not self.share:
            raise DataError(
                f"{error}; mend or remove the sample, or tolerate a share of bad ones with "
                "data.bad_samples=0.001"
            ) from error
        self._bad[source] += 1
        bad, read = self._bad[source], self._read[source]
        if bad > max(_FEW, self.share * read):
            raise DataError(
                f"source {source!r}: at most {self.share:.3%} of the samples may be bad "
                f"(data.bad_samples), but {bad} of {read} were, see {self.folder}; the last one: "
                f"{error}"
            ) from error

    def log(self, source: str, fingerprint: str, position: int, record: dict[str, Any]) -> None:
        """Write down which sample took a bad one's place.

        Args:
            source: its name.
            fingerprint: its contents and order; positions mean something only under it.
            position: of the bad sample.
            record: ``substitute`` is the position that took its place, None in validation, where
                nothing does; the rest is for people.
        """
        place = source, fingerprint, position
        is_known = place in self._known and self._known[place] == record["substitute"]
        self._known[place] = record["substitute"]
        if self.folder is None or is_known:
            return  # validation meets the same bad samples in every pass
        line = {"source": source, "fingerprint": fingerprint, "position": position, **record}
        self.folder.mkdir(parents=True, exist_ok=True)
        # One write of one line to a file opened for appending: workers do not mix theirs.
        descriptor = os.open(
            self.folder / f"rank-{self.rank}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)


def _substitutes(files: Iterable[Path]) -> dict[tuple[str, str, int], int | None]:
    known: dict[tuple[str, str, int], int | None] = {}
    for file in sorted(files):
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
                place = line["source"], line["fingerprint"], line["position"]
                substitute = line["substitute"]
                known[place] = None if substitute is None else int(substitute)
            except (ValueError, KeyError, TypeError):
                continue  # a killed run may leave its last line torn
    return known

"""What the commands print: results on standard output, progress on standard error."""

import shutil
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

PLAIN_INTERVAL_S = 10.0


def say(line: str) -> None:
    """Print a line of results."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Print a line about what is going on."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """A bar with rate and time left; on anything but a terminal a plain line now and then.

    Args:
        what: names the work.
        total: how much there is.
        unit: of what.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.count = 0
        self.started = self.printed = time.monotonic()
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            # Some terminals in containers say that they are 0 by 0, and would get an empty bar.
            size = shutil.get_terminal_size()
            self.bar = tqdm(
                total=self.total,
                desc=self.what,
                unit=f" {self.unit}",
                unit_scale=True,
                ncols=size.columns,
                nrows=size.lines,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.count += count
        if self.bar is not None:
            self.bar.update(count)
            return
        now = time.monotonic()
        if self.count < self.total and now - self.printed < PLAIN_INTERVAL_S:
            return
        self.printed = now
        rate = self.count / max(now - self.started, 1e-9)
        left = (self.total - self.count) / rate if rate else 0.0
        note(
            f"{self.what}: {self.count:,} of {self.total:,} {self.unit} "
            f"({rate:,.0f}/s, {left:,.0f} s left)"
        )

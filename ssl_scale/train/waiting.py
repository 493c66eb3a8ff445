"""How long training waits for its data."""

import time
from collections.abc import Generator
from contextlib import closing

from ssl_scale.data.step_batches import StepBatches


class Waiting:
    """Adds up the time that a loop spends in getting the next step's batches.

    Attributes:
        seconds: since it was read last.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, steps: Generator[StepBatches, None, None]) -> Generator[StepBatches, None, None]:
        """The same steps, timed."""
        with closing(steps):
            while True:
                began = time.monotonic()
                try:
                    step = next(steps)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.monotonic() - began
                yield step

    def read(self) -> float:
        """The seconds so far; counts from zero again."""
        read, self.seconds = self.seconds, 0.0
        return read

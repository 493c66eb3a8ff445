"""What every probe is: a measurement of frozen features."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float, Int

from ssl_scale.part import Part


class Probe(Part, ABC):
    """Fits something small on frozen features and scores it on held-out ones."""

    @abstractmethod
    def score(
        self,
        train: Float[np.ndarray, "train width"],
        train_labels: Int[np.ndarray, " train"],
        test: Float[np.ndarray, "test width"],
        test_labels: Int[np.ndarray, " test"],
    ) -> dict[str, float]:
        """Named figures; higher is better unless the name says otherwise."""

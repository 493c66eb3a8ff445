"""Objectives that are not content with shapes."""

from ssl_scale.objectives.cross_entropy import CrossEntropy
from ssl_scale.types import Loss, Step


class Looks(CrossEntropy):
    """Looks at a value of the features, as no shape can tell it."""

    def forward(self, step: Step) -> Loss:
        pooled = step.student(self.encoder, self.view).pooled
        assert float(pooled.detach().abs().sum()) >= 0
        return super().forward(step)

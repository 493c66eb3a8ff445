"""A linear probe that learns beside the encoder: how good features are, without waiting."""

from collections.abc import Mapping

from torch import Tensor

from ssl_scale.part import EncoderName, FieldName, Given, Positive, ViewName
from ssl_scale.probes.online import OnlineClassifier
from ssl_scale.system.step import Answers
from ssl_scale.train.callbacks.observer import Observer, shows


class OnlineProbe(Observer):
    """Trains a linear classifier on the detached features of labelled training batches.

    It is no part of the trained system: the encoder never feels it, and it has an optimizer of its
    own, so the engine's may be any.

    Args:
        encoder: whose pooled features are classified.
        label: field of class numbers; negative where a sample has none.
        view: named like the encoder unless told; every crop is a sample.
        lr: Adam's learning rate.
        classes: number of classes of each label field.
    """

    def __init__(
        self,
        encoder: EncoderName,
        label: FieldName,
        view: ViewName | None = None,
        lr: Positive = 3e-3,
        *,
        classes: Given[Mapping[str, int]],
    ) -> None:
        self.encoder, self.label, self.view = encoder, label, view or encoder
        self.lr, self.num_classes = lr, classes[label]
        self.classifier: OnlineClassifier | None = None
        self._saved: Mapping[str, Tensor] = {}

    def see_step(self, answers: Answers) -> None:
        """Learn from the batch, if it has labels."""
        if not shows(answers, self.view, self.label):
            return
        step = answers.named("online_probe")
        pooled = step.student(self.encoder, self.view, grad=False).pooled
        labels = answers.batch.fields[self.label]
        assert isinstance(labels, Tensor)
        labels = labels[:, None].expand(pooled.shape[:2])
        known = step.view(self.view).present & (labels >= 0)
        self._classifier_for(pooled).update(pooled.flatten(0, 1), labels.flatten(), known.flatten())

    def read_steps(self) -> dict[str, float]:
        """``loss`` and ``accuracy`` on batches before they were learned from."""
        return self.classifier.read() if self.classifier else {}

    def state_dict(self) -> dict[str, Tensor]:
        """The classifier's state, once there is one."""
        return self.classifier.state_dict() if self.classifier else dict(self._saved)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Keep the state until the first features tell their width and device."""
        self.classifier, self._saved = None, dict(state)

    def _classifier_for(self, pooled: Tensor) -> OnlineClassifier:
        if self.classifier is None:
            width, device = pooled.shape[-1], pooled.device
            self.classifier = OnlineClassifier(width, self.num_classes, self.lr, device)
            if self._saved:
                self.classifier.load_state_dict(self._saved)
                self._saved = {}
        return self.classifier

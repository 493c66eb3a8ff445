"""How many directions the features of held-out samples use: an early sign of collapse."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.part import Count, EncoderName, ViewName
from ssl_scale.probes.rankme import rankme
from ssl_scale.system.step import Answers
from ssl_scale.train.callbacks.observer import Observer, shows


class RankMe(Observer):
    """The effective rank of pooled features, at every validation.

    Paper: RankMe, arXiv 2210.02885, which takes 25,600 samples; fewer bound the rank.

    Args:
        encoder: whose pooled features are measured.
        view: named like the encoder unless told; only its first crop is looked at.
        max_samples: first samples of a validation pass to take, over all ranks.
        every: validation passes from one measurement to the next.
    """

    def __init__(
        self,
        encoder: EncoderName,
        view: ViewName | None = None,
        max_samples: Count = 4096,
        every: Count = 1,
    ) -> None:
        self.encoder, self.view = encoder, view or encoder
        self.max_samples, self.every = max_samples, every
        self.passes = 0
        self.rows: list[Tensor] = []
        self.batches_seen = self.places_seen = 0

    def see_validation(self, source: str, answers: Answers) -> None:
        """Keep the batch's features, if it has the view and there is room."""
        if self.passes % self.every or not shows(answers, self.view):
            return
        self.batches_seen += 1
        # Places without a sample take room too: else ranks would not all ask the encoder.
        room = -(-self.max_samples // dist.world_size()) - self.places_seen
        if room > 0:
            step = answers.named("rankme")
            pooled = step.student(self.encoder, self.view, grad=False).pooled[:room, 0]
            present = step.view(self.view).present[:room, 0]
            self.rows.append(pooled[present].detach().float())
            self.places_seen += len(pooled)

    def read_validation(self) -> dict[str, float]:
        """``rank``, between 1 and the width; a validation pass is over."""
        self.passes += 1
        seen, self.batches_seen, self.places_seen = self.batches_seen, 0, 0
        if not seen:
            return {}
        features = dist.gather(torch.cat(self.rows))[: self.max_samples]
        self.rows = []
        return {"rank": rankme(features.cpu().numpy())} if len(features) else {}

    def state_dict(self) -> dict[str, Tensor]:
        """How many validation passes there were."""
        return {"passes": torch.tensor([float(self.passes)])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on counting."""
        self.passes = int(state["passes"]) if state else 0

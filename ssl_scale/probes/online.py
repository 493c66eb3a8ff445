"""A linear classifier that is trained beside the encoder, to watch features while they form."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale import dist


class OnlineClassifier:
    """Softmax regression on detached features, alike on every rank.

    Its parameters start from zero and move by gradients summed over ranks and divided by the
    global number of samples, so all ranks hold the same values and nothing needs to be broadcast.
    Samples are scored before they are learned from: the accuracy is one on unseen samples, of a
    classifier that trails the encoder. Features are brought to mean 0 and variance 1 within a
    sample, so that the learning rate fits encoders of any scale.

    Args:
        width: of the features.
        num_classes: number of classes.
        lr: Adam's learning rate.
        device: where features will be.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        lr: float = 3e-3,
        device: torch.device | None = None,
    ) -> None:
        self.weight = torch.zeros(num_classes, width, device=device, requires_grad=True)
        self.bias = torch.zeros(num_classes, device=device, requires_grad=True)
        # Above rounding: Adam would blow up a gradient that is 0 but for the order of its sum,
        # as the biases' is at first where classes are equally frequent.
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=lr, eps=1e-6)
        self.sums = torch.zeros(3, dtype=torch.float64)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    def update(
        self,
        features: Float[Tensor, "n width"],
        labels: Int[Tensor, " n"],
        known: Bool[Tensor, " n"],
    ) -> None:
        """Score this rank's samples, then learn from those of all ranks. A collective.

        Args:
            features: of any floating-point type; no gradient reaches them.
            labels: class numbers.
            known: which samples count; the labels of others mean nothing.
        """
        with torch.enable_grad():
            normalized = F.layer_norm(features.detach().float(), features.shape[-1:])
            logits = F.linear(normalized, self.weight, self.bias)
            targets = torch.where(known, labels, 0)
            losses = F.cross_entropy(logits, targets, reduction="none")
            loss = torch.where(known, losses, 0).sum()
            gradients = torch.autograd.grad(loss, (self.weight, self.bias))
        hits = ((logits.argmax(-1) == targets) & known).sum()
        figures = torch.stack([loss.detach(), hits.float(), known.sum().float()])
        packed = dist.reduce(torch.cat([*(part.flatten() for part in gradients), figures]))
        figures = packed[-3:].double().cpu()
        if figures[2] == 0:
            return
        self.sums += figures
        by_weight, by_bias = packed[:-3].split([self.weight.numel(), self.bias.numel()])  # type: ignore[no-untyped-call]
        self.weight.grad = by_weight.view_as(self.weight) / float(figures[2])
        self.bias.grad = by_bias / float(figures[2])
        self.optimizer.step()

    def read(self) -> dict[str, float]:
        """``loss`` and ``accuracy`` since the last reading; nothing if there were no samples."""
        loss, hits, count = self.sums.tolist()
        self.sums.zero_()
        return {"loss": loss / count, "accuracy": hits / count} if count else {}

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs, as named tensors; Adam's are called ``weight.exp_avg``."""
        moments = {
            f"{name}.{key}": value
            for name, parameter in self._parameters().items()
            for key, value in self.optimizer.state[parameter].items()
        }
        held = {**self._parameters(), **moments, "sums": self.sums}
        return {name: value.detach().clone() for name, value in held.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of the same sizes."""
        self.sums.copy_(state["sums"])
        for name, parameter in self._parameters().items():
            parameter.copy_(state[name])
            moments = {
                key.removeprefix(f"{name}."): value.clone()
                for key, value in state.items()
                if key.startswith(f"{name}.")
            }
            if moments:
                # Adam counts its steps on the host.
                self.optimizer.state[parameter] = {
                    key: value.cpu() if key == "step" else value.to(parameter.device)
                    for key, value in moments.items()
                }

    def _parameters(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}

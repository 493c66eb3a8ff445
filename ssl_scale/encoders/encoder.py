"""What every encoder is: view in, features out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from ssl_scale.part import Part, Spec
from ssl_scale.types import Attend, Features, Layout, Mask, View


class Encoder(nn.Module, Part, ABC):
    """A modality's stem and a trunk.

    ZeRO-3 gathers the parameters of modules whose inputs and outputs are tensors, so an encoder,
    which takes a `View` and returns `Features`, owns none itself: positions, prefix and mask
    tokens live in leaf modules.

    Attributes:
        width: features of a token.
        takes_packed: whether it keeps the samples of a packed view (`View.lengths`) apart.
    """

    width: int
    takes_packed: bool = False

    def portable(self, spec: Spec["Encoder"]) -> Spec["Encoder"]:
        """What it was built from, without files beside it: what an export describes."""
        return spec

    @abstractmethod
    def layout(self, view: View) -> Layout:
        """How this encoder cuts the view into tokens. Needs no parameters."""

    @abstractmethod
    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode a view; `keep` names intermediates (``stem``, ``layer.3``) for `Features.kept`."""

"""What one forward pass tells every block besides the tokens."""

from dataclasses import dataclass

from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import Rotation
from ssl_scale.types import Attend


@dataclass(frozen=True, eq=False)
class Setting:
    """How tokens may see each other.

    It holds no tensor that needs a gradient, and goes to modules as a keyword: DeepSpeed's ZeRO-3
    hooks look at positional arguments only, and so neither see it nor miss anything.

    Args:
        packing: where the sequences lie.
        attend: which tokens a token sees.
        rotation: rotary positions, if any.
    """

    packing: Packing
    attend: Attend = "full"
    rotation: Rotation | None = None

"""Every objective of ours keeps the contract that is asked of a user's own."""

import pytest

from ssl_scale.objectives.objective import Objective
from ssl_scale.recipe.rooms import parts_in
from ssl_scale.verify.loading import with_settings
from ssl_scale.verify.verify import verify

pytestmark = [pytest.mark.dist, pytest.mark.slow]

CROPS = ("view=crops",)
SETTINGS: dict[str, tuple[str, ...]] = {
    "BYOL": CROPS,
    "BarlowTwins": CROPS,
    "BinaryCrossEntropy": ("label=tags",),
    "DINO": (*CROPS, "teacher_temperature=0.05", "local_view=local"),
    "Data2Vec": ("mask=blocks", "top=2"),
    "IBOT": ("mask=blocks", "teacher_temperature=0.05"),
    "IJEPA": ("mask=targets",),
    "MaskedTokens": ("encoder=text", "mask=words"),
    "MoCo": (*CROPS, "queue=9"),
    "MoCoV3": CROPS,
    "NNCLR": (*CROPS, "support=9"),
    "NTXent": CROPS,
    "PseudoLabel": (*CROPS, "threshold=0.25"),
    "SigmoidContrast": ("bias=-2",),
    "SimSiam": CROPS,
    "SupCon": CROPS,
    "SwAV": (*CROPS, "local_view=local"),
    "VICReg": CROPS,
}


@pytest.mark.parametrize("name", parts_in("ssl_scale.objectives", Objective))
def test_it_is_exact(name: str) -> None:
    findings = verify(with_settings(name, SETTINGS.get(name, ())))
    assert len(findings) >= 15
    assert [finding for finding in findings if finding.is_fault] == []

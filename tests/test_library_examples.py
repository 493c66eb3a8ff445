"""Short uses of the library from plain PyTorch; the README quotes them."""

from pathlib import Path

import torch

from tests.data.shards import digit_samples, write_folder


def test_one_objective_and_one_encoder() -> None:
    from ssl_scale.data.views.image import AugmentedImage
    from ssl_scale.encoders.vision import VisionTransformer
    from ssl_scale.heads.projector import MLPProjector
    from ssl_scale.objectives.ntxent import NTXent
    from ssl_scale.part import Spec
    from ssl_scale.system.system import System
    from ssl_scale.types import Batch

    encoder = VisionTransformer(width=32, depth=2, num_heads=2, patch=4, size_px=16)
    projector = Spec.of(MLPProjector, hidden=32, out=16)
    simclr = NTXent("image", projector, view="crops", width=encoder.width)
    system = System({"image": encoder}, {"simclr": simclr}, {"crops": AugmentedImage("image", 16)})
    optimizer = torch.optim.AdamW(system.parameters(), lr=1e-2)

    images = torch.randint(256, (32, 3, 16, 16), dtype=torch.uint8)
    keys = tuple(map(str, range(32)))
    losses = []
    for index in range(30):
        seeds = torch.arange(32) + 1000 * index  # what is drawn for a sample follows from its seed
        loss = system.loss(system.answers(Batch("mine", {"image": images}, seeds, keys)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_two_objectives_and_a_teacher() -> None:
    from ssl_scale.data.views.image import AugmentedImage, ImageView
    from ssl_scale.encoders.vision import VisionTransformer
    from ssl_scale.heads.predictor import MLPPredictor
    from ssl_scale.heads.projector import MLPProjector
    from ssl_scale.objectives.byol import BYOL
    from ssl_scale.objectives.cross_entropy import CrossEntropy
    from ssl_scale.optim.schedule import Constant
    from ssl_scale.part import Spec
    from ssl_scale.sharding import Unsharded
    from ssl_scale.system.system import System
    from ssl_scale.teachers.ema import EMATeacher
    from ssl_scale.types import Batch

    def make_encoder() -> VisionTransformer:
        return VisionTransformer(width=32, depth=2, num_heads=2, patch=4, size_px=16)

    projector = Spec.of(MLPProjector, hidden=32, out=16)
    byol = BYOL("image", projector, Spec.of(MLPPredictor, hidden=32), view="crops", width=32)
    classify = CrossEntropy("image", "label", view="plain", width=32, classes={"label": 10})
    ema = EMATeacher(momentum=Constant(0.99))
    ema.adopt(
        {
            "encoders.image": make_encoder,
            "objectives.byol.projector": lambda: projector.build(width=32),
        }
    )
    system = System(
        encoders={"image": make_encoder()},
        objectives={"byol": byol, "classify": classify},
        views={"crops": AugmentedImage("image", 16), "plain": ImageView("image")},
        teachers={"ema": ema},
    )
    ema.copy_student(system)
    trained = [parameter for parameter in system.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    images = torch.randint(256, (32, 3, 16, 16), dtype=torch.uint8)
    labels = torch.arange(32) % 10  # -1 would mean: has none
    keys = tuple(map(str, range(32)))
    losses = []
    for index in range(30):
        fields = {"image": images, "label": labels}
        loss = system.loss(
            system.answers(Batch("mine", fields, torch.arange(32) + 1000 * index, keys))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(system, Unsharded(), progress=index / 30)
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.8 * losses[0]


def test_reading_shards(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    write_folder(folder, [digit_samples(50)])

    from ssl_scale.data.decoding import LabelField
    from ssl_scale.data.image_field import ImageField
    from ssl_scale.data.loader import TrainingStream, dataloader
    from ssl_scale.data.mixture import make_mixture
    from ssl_scale.data.source import Source

    fields = {
        "image": ImageField("png", size_px=8, channels=1),
        "label": LabelField("cls", num_classes=10),
    }
    digits = Source("digits", folder, fields, seed=0)
    mixture = make_mixture({"digits": 1}, global_batch=16, per_step="one", seed=0)
    stream = TrainingStream({"digits": digits}, mixture, rank=0, world_size=2, start_step=100)

    for step, batches in zip(range(100, 103), dataloader(stream), strict=False):
        [[batch]] = batches  # of one micro-batch, of one source
        print(step, batch.fields["image"].shape, batch.keys[0])

    assert batch.fields["image"].shape == (8, 1, 8, 8) and len(set(batch.keys)) == 8

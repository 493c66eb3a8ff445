"""A small real `Step`: linear encoders over made-up samples, any slice of which is one rank's.

What an absent sample holds is NaN, in its views and in its features, so that whatever an objective
lets through shows.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.heads.classifier import Classifier
from ssl_scale.masking.block_mask import BlockMask
from ssl_scale.masking.multi_block_mask import MultiBlockMask
from ssl_scale.masking.random_mask import RandomMask
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.masking.token_mask import TokenMask
from ssl_scale.nn.tokens import MaskFill
from ssl_scale.objectives.masked_pixels import cut_patches
from ssl_scale.objectives.objective import Objective
from ssl_scale.rng import Draw
from ssl_scale.types import Attend, Batch, Features, Layout, Mask, View

WIDTH, WORDS, CLASSES, GRID, PATCH_VALUES = 8, 11, 5, (2, 3), 3 * 2 * 2
DEPTH = 2  # layers that the encoder of pictures tells of


@dataclass
class Samples:
    """Samples with images, texts and labels, any of which may be absent."""

    crops: Tensor
    image: Tensor
    has_image: Tensor
    words: Tensor
    lengths: Tensor
    label: Tensor
    tags: Tensor
    seeds: Tensor

    def pick(self, rows: Sequence[int]) -> "Samples":
        """Some of them, in the order asked for."""
        where = torch.tensor(rows, dtype=torch.int64)
        return Samples(**{entry.name: getattr(self, entry.name)[where] for entry in fields(self)})

    def lack_image(self, rows: slice) -> None:
        """Take the pictures of some away."""
        self.has_image[rows] = False
        self.crops[rows], self.image[rows] = torch.nan, torch.nan

    def lack_text(self, rows: slice) -> None:
        """Take the texts of some away."""
        self.lengths[rows] = 0

    def lack_labels(self, rows: slice) -> None:
        """Take the labels of some away."""
        self.label[rows], self.tags[rows] = -1, -1


def make_samples(count: int, dtype: torch.dtype = torch.float64) -> Samples:
    """Samples of which some lack the image, some the text, some the label."""
    generator = torch.Generator().manual_seed(1)
    number = torch.arange(count)
    has_image = number % 4 != 2
    has_text = number % 5 != 3
    pixels = torch.randn(count, 3, 3, 4, 6, generator=generator, dtype=torch.float64).to(dtype)
    pixels[~has_image] = torch.nan
    lengths = torch.randint(5, 9, (count,), generator=generator) * has_text
    tags = torch.randint(-1, 2, (count, CLASSES), generator=generator)
    return Samples(
        crops=pixels[:, :2],
        image=pixels[:, 2:],
        has_image=has_image,
        words=torch.randint(0, WORDS, (count, 1, 8), generator=generator),
        lengths=lengths,
        label=torch.where(number % 3 == 1, -1, number % CLASSES),
        tags=tags,
        seeds=number * 7919 + 5,
    )


def poison(x: Tensor, present: Tensor) -> Tensor:
    """NaN where absent; no gradient passes there."""
    return torch.where(present.view(*present.shape, *[1] * (x.ndim - present.ndim)), x, torch.nan)


class SmallEncoder(Encoder):
    """An encoder that can collapse."""

    @abstractmethod
    def make_constant(self) -> None:
        """Change the weights so that all features are equal."""


class PatchEncoder(SmallEncoder):
    """A linear map of each patch, then tanh; pooled is the mean of the visible tokens.

    Layer 0 is what enters the tanh, layer 1 what leaves it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.linear = nn.Linear(PATCH_VALUES, WIDTH)
        self.place = nn.Embedding(GRID[0] * GRID[1], WIDTH)
        self.fill = MaskFill(WIDTH)

    def make_constant(self) -> None:
        """Forget what is seen and where."""
        self.linear.weight.zero_()
        self.place.weight.copy_(self.place.weight[:1].clone().expand_as(self.place.weight))
        self.fill.token.copy_(self.linear.bias.view_as(self.fill.token))

    def layout(self, view: View) -> Layout:
        """One token a place."""
        places = GRID[0] * GRID[1]
        return Layout(GRID, view.present[..., None].expand(-1, -1, places))

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode pictures."""
        valid = self.layout(view).valid
        patches = cut_patches(view.values, *GRID)
        layer = self.linear(torch.where(valid[..., None], patches, 0))
        if mask is not None and mask.mode == "replace":
            filled = self.fill(layer.flatten(0, 1), mask.hidden.flatten(0, 1))
            layer = filled.view(layer.shape)
        origin = torch.arange(valid.shape[-1]).expand(valid.shape)
        layer = layer + self.place(origin)
        if mask is not None and mask.mode == "drop":
            visible = ~mask.hidden
            most = int(visible.sum(-1).amax()) if visible.numel() else 0
            origin = mask.hidden.int().argsort(dim=-1, stable=True)[..., :most]
            layer = layer.gather(2, origin[..., None].expand(-1, -1, -1, WIDTH))
            valid = (valid & visible).gather(2, origin)
        tokens = torch.tanh(layer)
        count = valid.sum(-1, keepdim=True).clamp(min=1)
        pooled = poison(torch.where(valid[..., None], tokens, 0).sum(2) / count, view.present)
        kept = {"layer.0": poison(layer, view.present), "layer.1": poison(tokens, view.present)}
        kept = {name: kept[name] for name in keep}
        tokens = poison(tokens, valid)
        return Features(tokens, valid, pooled, tokens[:, :, :0], origin, kept)


class WordEncoder(SmallEncoder):
    """Embeds words; each token also sees the mean of its sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.embedding = nn.Embedding(WORDS + 1, WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def make_constant(self) -> None:
        """Take all words for the same."""
        table = self.embedding.weight
        table.copy_(table[:1].clone().expand_as(table))

    def layout(self, view: View) -> Layout:
        """One token a place."""
        return Layout((view.values.shape[-1],), view.valid)

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode texts."""
        words = view.values if mask is None else view.values.masked_fill(mask.hidden, WORDS)
        embedded = torch.where(view.valid[..., None], self.embedding(words), 0)
        count = view.valid.sum(-1)[..., None].clamp(min=1)
        mean = embedded.sum(2) / count
        tokens = torch.tanh(self.linear(embedded + mean[:, :, None]))
        pooled = torch.where(view.valid[..., None], tokens, 0).sum(2) / count
        tokens, pooled = poison(tokens, view.present), poison(pooled, view.present)
        origin = torch.arange(words.shape[-1]).expand(words.shape)
        return Features(tokens, view.valid, pooled, tokens[:, :, :0], origin)


class World(nn.Module):
    """One objective with the encoders it reads, a head that it may share, and a teacher of all."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.encoders = nn.ModuleDict({"image": PatchEncoder(), "text": WordEncoder()})
        self.heads = nn.ModuleDict({"classifier": Classifier(CLASSES, width=WIDTH)})
        self.taught = nn.ModuleDict({"encoder": PatchEncoder()})
        self.masks: dict[str, tuple[MaskSampler, str, str]] = {
            "patches": (RandomMask(0.5), "image", "image"),
            "words": (TokenMask(0.3), "words", "text"),
            "blocks": (BlockMask((0.2, 0.7), share=0.7, num_tries=6), "crops", "image"),
            "targets": (MultiBlockMask(2, (0.2, 0.4)), "crops", "image"),
        }

    def teach(self, other: "World") -> "World":
        """Let another world's encoder and heads be the teacher."""
        self.taught["encoder"] = other.encoders["image"]
        self.taught.update(dict(other.heads.items()))
        for name in self.objective.taught:
            self.taught[name] = other.objective.get_submodule(name)
        self.taught.requires_grad_(False).eval()
        return self

    @torch.no_grad()
    def make_constant(self) -> None:
        """Let every encoder say the same of everything."""
        for encoder in (*self.encoders.values(), self.taught["encoder"]):
            assert isinstance(encoder, SmallEncoder)
            encoder.make_constant()

    def step(self, samples: Samples) -> "PreparedStep":
        """One rank's step over its samples."""
        return PreparedStep(self, samples)


class PreparedStep:
    """Implements `ssl_scale.types.Step` over a `World`."""

    def __init__(self, world: World, samples: Samples) -> None:
        self.world, self.progress, self.index = world, 0.0, 0
        labels: dict[str, Any] = {"label": samples.label, "tags": samples.tags}
        keys = tuple(map(str, samples.seeds.tolist()))
        self.batch = Batch("prepared", labels, samples.seeds, keys)
        there = samples.has_image[:, None, None]
        places = torch.arange(samples.words.shape[-1])
        self.views = {
            "crops": View(samples.crops, there.expand(-1, 2, 1), samples.seeds),
            "image": View(samples.image, there, samples.seeds),
            "local": View(
                torch.cat([samples.image, samples.crops], 1).flip(-1),
                there.expand(-1, 3, 1),
                samples.seeds,
            ),
            "words": View(samples.words, places < samples.lengths[:, None, None], samples.seeds),
        }
        self.views["text"] = self.views["words"]
        self.memo: dict[Any, Features] = {}

    def view(self, name: str) -> View:
        """A view, by name."""
        return self.views[name]

    def mask(self, name: str) -> Mapping[str, Mask]:
        """The named mask, drawn from the samples' seeds."""
        sampler, view, encoder = self.world.masks[name]
        return {view: sampler(self.layout(encoder, view), self.draw(name))}

    def layout(self, part: str, view: str | View | None = None) -> Layout:
        """How an encoder cuts a view."""
        return self._encoder(part).layout(self._view(part, view))

    def student(
        self,
        part: str,
        view: str | View | None = None,
        *,
        mask: str | Mask | None = None,
        attend: Attend | None = None,
        draw: int = 0,
        grad: bool = True,
    ) -> Features:
        """The encoder's features, computed once for a question."""
        key = (part, view, mask)
        if key not in self.memo:
            drawn = self.mask(mask)[str(view)] if isinstance(mask, str) else mask
            keep = self.world.objective.reads.get(part, ())
            self.memo[key] = self._encoder(part)(self._view(part, view), drawn, "full", keep)
        return self.memo[key]

    def teacher(
        self,
        part: str,
        view: str | View | None = None,
        *,
        by: str | None = None,
        mask: str | Mask | None = None,
        attend: Attend | None = None,
    ) -> Features:
        """The teacher's, without gradient."""
        keep, view = self.world.objective.reads.get(part, ()), self._view(part, view)
        with torch.no_grad():
            features: Features = self.world.taught["encoder"](view, None, "full", keep)
        return features

    def apply(self, head: str, *tensors: Tensor, by: str | None = None) -> Any:
        """A shared head, or a taught one, without gradient."""
        if by is None and head in self.world.heads:
            return self.world.heads[head](*tensors)
        with torch.no_grad():
            return self.world.taught[head](*tensors)

    def draw(self, name: str) -> Draw:
        """Randomness of each sample."""
        return Draw(self.batch.seeds).child(name)

    def draw_step(self, name: str) -> torch.Generator:
        """A generator that is equal on all ranks."""
        return torch.Generator().manual_seed(0)

    def gather(self, local: Tensor) -> Tensor:
        """As the engine does."""
        return dist.gather(local)

    def reduce(self, local: Tensor) -> Tensor:
        """As the engine does."""
        return dist.reduce(local)

    def ring(self, local: Tensor) -> Iterator[Tensor]:
        """As the engine does."""
        return dist.ring(local)

    def offset(self, local: Tensor) -> int:
        """As the engine does."""
        return dist.offset(local.shape[0], local.device)

    def _encoder(self, part: str) -> Encoder:
        encoder = self.world.encoders[part]
        assert isinstance(encoder, Encoder)
        return encoder

    def _view(self, part: str, view: str | View | None) -> View:
        return view if isinstance(view, View) else self.view(view or part)

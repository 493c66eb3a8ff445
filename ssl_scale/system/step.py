"""The live `Step`: one micro-batch seen by all its objectives; equal questions, one answer."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.masking.packed import pack_mask
from ssl_scale.rng import Draw, combine, hash_name
from ssl_scale.types import Attend, Batch, Features, Layout, Mask, View

if TYPE_CHECKING:
    from ssl_scale.system.system import System


class Answers:
    """What one micro-batch has been asked so far, shared by all objectives.

    Args:
        system: the modules that answer.
        batch: the samples.
        index: optimizer step, from 0.
        progress: fraction of training done.
        seed: the run's seed, for draws that belong to the step and not to a sample.
        micro: which micro-batch of the step this is.
    """

    def __init__(
        self,
        system: "System",
        batch: Batch,
        *,
        index: int = 0,
        progress: float = 0.0,
        seed: int = 0,
        micro: int = 0,
    ) -> None:
        self.system = system
        self.batch = batch
        self.index = index
        self.progress = progress
        self.words = (seed, index, micro)
        self.views: dict[str, View] = {}
        self.masks: dict[str, dict[str, Mask]] = {}
        self.memo: dict[tuple[Any, ...], Any] = {}
        # Questions are keyed by the identity of tensors; holding these keeps identities unique.
        self.held: list[Any] = []

    def named(self, scope: str) -> "LiveStep":
        """The step as the named objective sees it."""
        return LiveStep(self, scope)


class LiveStep:
    """One objective's window on `Answers`; implements `ssl_scale.types.Step`."""

    def __init__(self, answers: Answers, scope: str) -> None:
        self._answers = answers
        self._scope = scope
        self.batch = answers.batch
        self.progress = answers.progress
        self.index = answers.index

    def view(self, name: str) -> View:
        """A named view of the batch, made on the device, once."""
        answers = self._answers
        if name not in answers.views:
            draw = Draw(self.batch.seeds).child("view", name)
            with torch.no_grad():
                made = answers.system.views[name](self.batch, draw)
            if made.values.is_floating_point():
                made = made.but(values=made.values.to(answers.system.dtype))
            answers.views[name] = made.but(seeds=draw.seeds)
        return answers.views[name]

    def mask(self, name: str) -> Mapping[str, Mask]:
        """View name -> the named mask, drawn once a step."""
        answers = self._answers
        if name not in answers.masks:
            named = answers.system.masks[name]
            layout = self.layout(named.encoder, named.view)
            with torch.no_grad():
                drawn = named.sampler(layout, Draw(self.batch.seeds).child("mask", name))
                view = self.view(named.view)
                if view.lengths is not None:
                    drawn = pack_mask(drawn, view)
            answers.masks[name] = {named.view: drawn}
        return answers.masks[name]

    def layout(self, part: str, view: str | View | None = None) -> Layout:
        """How the named encoder cuts a view into tokens."""
        return self._answers.system.encoder(part).layout(self._view(part, view))

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
        """The named encoder's features, computed once for equal questions."""
        with_gradient = grad and torch.is_grad_enabled()
        question = ("student", part, *self._name(part, view, mask), attend, draw)
        key = (*question, with_gradient)
        if not with_gradient and (*question, True) in self._answers.memo:
            self._answers.memo.setdefault(key, self._answers.memo[(*question, True)].detach())
        if key not in self._answers.memo:
            looked_at = self._view(part, view)
            if draw:
                looked_at = looked_at.but(seeds=combine(looked_at.seeds, draw))
            with torch.set_grad_enabled(with_gradient):
                self._answers.memo[key] = self._answers.system.encoder(part)(
                    looked_at,
                    self._mask(part, view, mask),
                    attend or "full",
                    self._answers.system.kept(part),
                )
        return self._answers.memo[key]  # type: ignore[no-any-return]

    def teacher(
        self,
        part: str,
        view: str | View | None = None,
        *,
        by: str | None = None,
        mask: str | Mask | None = None,
        attend: Attend | None = None,
    ) -> Features:
        """The same from a teacher: evaluation mode, no gradient."""
        name = self._answers.system.teacher_name(by)
        key = ("teacher", name, part, *self._name(part, view, mask), attend)
        if key not in self._answers.memo:
            encoder = self._answers.system.teachers[name].part(f"encoders.{part}")
            with torch.no_grad():
                self._answers.memo[key] = encoder(
                    self._view(part, view),
                    self._mask(part, view, mask),
                    attend or "full",
                    self._answers.system.kept(part),
                )
        return self._answers.memo[key]  # type: ignore[no-any-return]

    def apply(self, head: str, *tensors: Tensor, by: str | None = None) -> Any:
        """Run a shared head once for the same tensors, or a teacher's copy of a head."""
        system = self._answers.system
        shared = head in system.heads
        key = ("head", head if shared else f"{self._scope}.{head}", by, *map(id, tensors))
        if key not in self._answers.memo:
            if by is None and shared:
                answer = system.heads[head](*tensors)
            else:
                teacher = system.teachers[system.teacher_name(by)]
                path = f"heads.{head}" if shared else f"objectives.{self._scope}.{head}"
                with torch.no_grad():
                    answer = teacher.part(path)(*tensors)
            self._answers.held.extend(tensors)
            self._answers.memo[key] = answer
        return self._answers.memo[key]

    def draw(self, name: str) -> Draw:
        """Per-sample randomness, pure in (seed, epoch, sample, objective, name)."""
        return Draw(self.batch.seeds).child(self._scope, name)

    def draw_step(self, name: str) -> torch.Generator:
        """A CPU generator that is equal on all ranks, fresh each step."""
        words = torch.tensor([hash_name(f"{self._scope}.{name}")])
        seed = int(combine(words, *self._answers.words)[0]) & ((1 << 63) - 1)
        return torch.Generator().manual_seed(seed)

    def gather(self, local: Tensor) -> Tensor:
        """Rows of all ranks in rank order, with gradient."""
        return dist.gather(local)

    def reduce(self, local: Tensor) -> Tensor:
        """Sum over ranks, with gradient."""
        return dist.reduce(local)

    def ring(self, local: Tensor) -> Iterator[Tensor]:
        """Every rank's rows in turn, with gradient, beginning with this rank's."""
        return dist.ring(local)

    def offset(self, local: Tensor) -> int:
        """How many rows lower ranks bring to ``gather(local)``."""
        return dist.offset(local.shape[0], local.device)

    def _view(self, part: str, view: str | View | None) -> View:
        return view if isinstance(view, View) else self.view(view or part)

    def _mask(self, part: str, view: str | View | None, mask: str | Mask | None) -> Mask | None:
        if not isinstance(mask, str):
            return mask
        drawn = self.mask(mask)
        looked_at = (view or part) if not isinstance(view, View) else part
        if looked_at not in drawn:
            raise KeyError(f"mask {mask!r} covers {sorted(drawn)}, but was asked for {looked_at!r}")
        return drawn[looked_at]

    def _name(
        self, part: str, view: str | View | None, mask: str | Mask | None
    ) -> tuple[str | int | None, str | int | None]:
        for thing in (view, mask):
            if thing is not None and not isinstance(thing, str):
                self._answers.held.append(thing)
        return (
            id(view) if isinstance(view, View) else view or part,
            id(mask) if isinstance(mask, Mask) else mask,
        )

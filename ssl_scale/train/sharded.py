"""One picture of sharded state for every ZeRO stage: which rank holds which slice of which tensor.

DeepSpeed keeps fp32 masters and optimizer moments in flat buffers, laid out differently in each
stage. `ShardedState` finds, for every trained parameter, this rank's slice of the master and of
each moment as a writable view. Checkpoints, roll-back and teachers are built on this picture alone.
It reads attributes of DeepSpeed that are not documented; ``tests/train/test_sharded.py`` pins them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.optim.layerwise import Run
from ssl_scale.sharding import (
    Slice,
    is_partitioned,
    local_slice,
    local_values,
    refresh_persistent,
)

_BLOCK = 1 << 26  # numbers that are sent at once


@dataclass(frozen=True)
class Fragment:
    """This rank's slice of one trained parameter.

    Args:
        name: the parameter's name in the system.
        parameter: the parameter that forward passes use.
        place: which elements of the flattened parameter.
        flat: the flat fp32 buffer that the optimizer steps.
        offset: where in `flat` the slice begins.
    """

    name: str
    parameter: nn.Parameter
    place: Slice
    flat: Tensor
    offset: int

    def master(self) -> Tensor:
        """The fp32 values, writable."""
        return self.flat.data.view(-1).narrow(0, self.offset, self.place.numel)


class ShardedState:
    """Fragments of a DeepSpeed engine's trained parameters.

    Args:
        engine: the initialised engine.
        module: whose parameters are named; names are taken relative to it.
    """

    def __init__(self, engine: Any, module: nn.Module) -> None:
        self.engine = engine
        self.module = module
        self.zero = engine.optimizer
        self.stage = int(engine.zero_optimization_stage())
        names = {id(p): name for name, p in module.named_parameters()}
        self.fragments = {names[id(fragment.parameter)]: fragment for fragment in self._find(names)}
        self._by_parameter = {each.parameter: each for each in self.fragments.values()}
        self.is_offloaded = bool(
            getattr(self.zero, "cpu_offload", False)
            or getattr(self.zero, "offload_optimizer", False)
        )
        self._whole_norm: Tensor | None = None
        if self.stage == 0:
            self._measure_reduced_gradients()

    @property
    def inner(self) -> torch.optim.Optimizer:
        """The torch optimizer under DeepSpeed's wrapper."""
        return getattr(self.zero, "optimizer", self.zero)  # type: ignore[no-any-return]

    def master(self, parameter: nn.Parameter) -> Tensor:
        """This rank's fp32 piece of a parameter; under stage 3 with its padding.

        All of a parameter that no gradient trains, or that is whole and in fp32 itself.
        """
        if is_partitioned(parameter) and parameter.requires_grad:
            group, offset, numel = self.zero.grad_position[self.zero.get_param_id(parameter)]
            flat: Tensor = self.zero.fp32_partitioned_groups_flat[group]
            values = flat.data.view(-1).narrow(0, offset, numel)
        elif self.is_scattered(parameter):
            values = self._by_parameter[parameter].master()
        else:
            values = local_values(parameter).float()
        return values.to(local_values(parameter).device)  # offloaded ones lie on the host

    def place(self, parameter: nn.Parameter) -> Slice:
        """Which of a parameter's `local_values` `master` gives."""
        if self.is_scattered(parameter):
            return self._by_parameter[parameter].place
        return Slice(0, local_values(parameter).numel())

    @torch.no_grad()
    def complete(self, pairs: Sequence[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Give every rank the pieces of copies that others have written: sums of disjoint ones."""
        scattered = [(copy, theirs) for copy, theirs in pairs if self.is_scattered(theirs)]
        for some in _in_blocks(scattered):
            block = torch.cat([local_values(copy) for copy, _ in some])
            own = torch.zeros_like(block)
            at = 0
            for copy, theirs in some:
                place = self.place(theirs)
                begin = at + place.start
                own[begin : begin + place.numel] = block[begin : begin + place.numel]
                at += copy.numel()
            whole, at = dist.reduce(own), 0
            for copy, _ in some:
                local_values(copy).copy_(whole[at : at + copy.numel()])
                at += copy.numel()

    def is_scattered(self, parameter: nn.Parameter) -> bool:
        """Whether the rounded parameter is whole on every rank, and its master in pieces."""
        return (
            not is_partitioned(parameter)
            and parameter.dtype != torch.float32
            and parameter in self._by_parameter
        )

    def runs(self) -> dict[Tensor, list[Run]]:
        """Of each flat tensor that ranks hold pieces of: which elements are one parameter's.

        Empty under stage 0, where every rank steps whole parameters.
        """
        found: dict[Tensor, list[Run]] = {}
        for fragment in self.fragments.values() if self.stage else ():
            run = Run(fragment.offset, fragment.place.numel)
            found.setdefault(fragment.flat, []).append(run)
        return found

    def forget_gradients(self) -> None:
        """Zero what the last step left behind.

        ZeRO-3 writes a parameter's gradient partition when a gradient arrives and never clears it:
        a parameter that gets none in a step would be stepped with its previous one.
        """
        buffer = getattr(self.zero, "grad_partitions_flat_buffer", None)
        if buffer is not None:
            buffer.zero_()
        if self.is_offloaded:  # their gradients lie on the host, and stay there
            for flat in {id(each.flat): each.flat for each in self.fragments.values()}.values():
                if flat.grad is not None:
                    flat.grad.zero_()

    def gradient_norm(self) -> float:
        """Norm of the gradient of the step just taken, over all ranks, before clipping."""
        told = self.engine.get_global_grad_norm() if self.stage else self._whole_norm
        return 0.0 if told is None else float(told)

    def coming_norm(self) -> float:
        """The same, asked for from within the step, before parameters change."""
        told = self.zero._global_grad_norm if self.stage else self._whole_norm
        return 0.0 if told is None else float(told)

    def moments(self, fragment: Fragment) -> dict[str, Tensor]:
        """Moment name -> this rank's slice, writable; empty before the first step."""
        state = self.inner.state.get(fragment.flat, {})
        size = fragment.flat.numel()
        return {
            key: value.view(-1).narrow(0, fragment.offset, fragment.place.numel)
            for key, value in state.items()
            if isinstance(value, Tensor) and value.numel() == size and key != "step"
        }

    def counter(self, fragment: Fragment) -> float | None:
        """The optimizer's own step counter for a fragment; None before the first step."""
        step = self.inner.state.get(fragment.flat, {}).get("step")
        return None if step is None else float(step)

    @torch.no_grad()
    def restore_moments(
        self, fragment: Fragment, moments: dict[str, Tensor], counter: float | None
    ) -> None:
        """Write moments of a fragment, creating the optimizer's state where there is none yet."""
        state = self.inner.state[fragment.flat]
        if counter is not None:
            state["step"] = torch.tensor(counter, dtype=torch.float32)
        for key, value in moments.items():
            if key not in state:
                state[key] = torch.zeros_like(fragment.flat.data)
            state[key].view(-1).narrow(0, fragment.offset, fragment.place.numel).copy_(value)

    @torch.no_grad()
    def publish_masters(self, names: Iterable[str] | None = None) -> None:
        """Make masters visible to forward passes. Stage 3; other stages write parameters whole."""
        chosen = self.fragments if names is None else {n: self.fragments[n] for n in names}
        if self.stage != 3:
            return
        for fragment in chosen.values():
            values = local_values(fragment.parameter)[: fragment.place.numel]
            values.copy_(fragment.master())
        refresh_persistent(p for p in self.module.parameters() if p.requires_grad)

    def _measure_reduced_gradients(self) -> None:
        """Stage 0 tells no norm, and its gradients are whole only inside ``engine.step``."""
        reduce = self.engine.allreduce_gradients

        def reduce_and_measure(*arguments: Any, **options: Any) -> None:
            reduce(*arguments, **options)
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            self._whole_norm = nn.utils.get_total_norm(gradients)

        self.engine.allreduce_gradients = reduce_and_measure

    def _find(self, names: dict[int, str]) -> Iterator[Fragment]:
        if self.stage == 3:
            yield from self._find_partitioned(names)
        elif hasattr(self.zero, "single_partition_of_fp32_groups"):
            yield from self._find_flattened(names)
        else:
            yield from self._find_whole(names)

    def _find_partitioned(self, names: dict[int, str]) -> Iterator[Fragment]:
        for group, parameters in enumerate(self.zero.fp16_groups):
            flat = self.zero.fp32_partitioned_groups_flat[group]
            for parameter in parameters:
                _, offset, _ = self.zero.grad_position[self.zero.get_param_id(parameter)]
                place = local_slice(parameter, dist.rank())
                yield Fragment(names[id(parameter)], parameter, place, flat, offset)

    def _find_flattened(self, names: dict[int, str]) -> Iterator[Fragment]:
        for group, parameters in enumerate(self.zero.bit16_groups):
            flat = self.zero.single_partition_of_fp32_groups[group]
            for parameter in parameters:
                mapping = parameter._hp_mapping
                if mapping is None:  # another rank holds all of it
                    yield Fragment(names[id(parameter)], parameter, Slice(0, 0), flat, 0)
                    continue
                address = mapping.lp_fragment_address
                place = Slice(address.start, address.numel)
                offset = mapping.hp_fragment_address.start
                yield Fragment(names[id(parameter)], parameter, place, flat, offset)

    def _find_whole(self, names: dict[int, str]) -> Iterator[Fragment]:
        if not isinstance(self.zero, torch.optim.Optimizer):
            raise TypeError(
                f"stage 0 must keep a plain torch optimizer, but is {type(self.zero).__name__}; "
                "use zero: 1, 2 or 3 with reduced precision"
            )
        for group in self.zero.param_groups:
            for parameter in group["params"]:
                place = Slice(0, parameter.numel())
                yield Fragment(names[id(parameter)], parameter, place, parameter, 0)


def _in_blocks(
    pairs: Sequence[tuple[nn.Parameter, nn.Parameter]],
) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    """Some pairs at a time, of about a block's size together."""
    some: list[tuple[nn.Parameter, nn.Parameter]] = []
    for pair in pairs:
        some.append(pair)
        if sum(copy.numel() for copy, _ in some) >= _BLOCK:
            yield some
            some = []
    if some:
        yield some

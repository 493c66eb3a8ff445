"""From a recipe and a number of GPUs to what training will cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from ssl_scale.data.index import read_dataset
from ssl_scale.errors import RecipeError, SslScaleError
from ssl_scale.plan.building import build_on_meta
from ssl_scale.plan.checkpoint_size import checkpoint_bytes, kept_checkpoints
from ssl_scale.plan.cost import Counter, StepCost, cost_of_steps
from ssl_scale.plan.fitting import advise, fits
from ssl_scale.plan.gpus import GPU
from ssl_scale.plan.memory import RankBytes, bytes_per_rank
from ssl_scale.plan.parameters import Inventory, Part, moments_of, take_stock
from ssl_scale.recipe.recipe import Recipe
from ssl_scale.recipe.train_plan import TrainPlan


@dataclass(frozen=True)
class Machines:
    """What is trained on.

    Args:
        nodes: machines.
        gpus: GPUs of each; one rank on each.
        peak_tflops: 10^12 operations a second of one GPU at most.
        memory_bytes: of one GPU.
        mfu: share of the peak that training reaches.
    """

    nodes: int
    gpus: int
    peak_tflops: float
    memory_bytes: int
    mfu: float

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus", "peak_tflops", "memory_bytes"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SslScaleError(f"--{name} must be above 0, but is {getattr(self, name)}")
        if not 0 < self.mfu <= 1:
            raise SslScaleError(f"--mfu must be above 0 and at most 1, but is {self.mfu}")

    @classmethod
    def of(
        cls,
        nodes: int,
        gpus: int,
        kind: GPU,
        precision: str,
        mfu: float,
        memory_bytes: int | None = None,
        peak_tflops: float | None = None,
    ) -> "Machines":
        """Machines with GPUs of a kind; memory and peak are the kind's unless told."""
        memory = round(kind.memory_gb * 1e9) if memory_bytes is None else memory_bytes
        peak = kind.peak_tflops(precision) if peak_tflops is None else peak_tflops
        return cls(nodes, gpus, peak, memory, mfu)

    @property
    def world_size(self) -> int:
        """Data ranks."""
        return self.nodes * self.gpus


@dataclass(frozen=True)
class RunTime:
    """How long training takes.

    Args:
        steps: optimizer steps.
        hours: on the clock, all steps.
        gpu_hours: the same, of all GPUs together.
        checkpoints: that are kept at the end.
    """

    steps: int
    hours: float
    gpu_hours: float
    checkpoints: int


@dataclass(frozen=True)
class Plan:
    """What training will cost.

    Args:
        recipe: its name.
        precision: of the passes.
        stage: the recipe's ZeRO stage.
        machines: what is trained on.
        micro_batch: samples of a rank's micro-batch.
        parts: parameters by part.
        ranks: ZeRO stage -> bytes of a rank; stage 0 only in fp32.
        fits: ZeRO stage -> whether that fits.
        advice: what would fit, if the recipe's stage does not.
        step: operations of an average step.
        step_s: its seconds.
        checkpoint: bytes of one.
        run: the whole run; None if its steps are not known.
        missing: what would have to be known for more.
    """

    recipe: str
    precision: str
    stage: int
    machines: Machines
    micro_batch: int
    parts: tuple[Part, ...]
    ranks: Mapping[int, RankBytes]
    fits: Mapping[int, bool]
    advice: str | None
    step: StepCost
    step_s: float
    checkpoint: int
    run: RunTime | None
    missing: tuple[str, ...]


def make_plan(recipe: Recipe, machines: Machines, vocab_size: int | None = None) -> Plan:
    """Plan a run; nothing of its size is allocated.

    Args:
        recipe: a checked recipe; its data need not be bound.
        machines: what it is trained on.
        vocab_size: of texts; asked of the recipe's tokenizer unless told.

    Raises:
        RecipeError: the batch cannot be cut for so many ranks, or parts do not fit together.
        UnboundDataError: what data decide is needed and not known.
    """
    if not may_have(recipe, machines.world_size):
        raise RecipeError(
            f"data.global_batch must be divisible by GPUs x train.accumulate = "
            f"{machines.world_size} x {recipe.train.accumulate}, but is {recipe.data.global_batch}"
        )
    system = build_on_meta(recipe, vocab_size)
    optim = recipe.optim.build(global_batch=recipe.data.global_batch)
    inventory, moments = take_stock(system, optim), moments_of(optim)
    counter, sizes = Counter(recipe, system, vocab_size), known_sizes(recipe)
    step = cost_of_steps(recipe, counter, machines.world_size, sizes)

    def ranks_of(world_size: int) -> dict[int, RankBytes]:
        kept = cost_of_steps(recipe, counter, world_size, sizes).activations
        return bytes_by_stage(inventory, recipe.train, world_size, moments, kept)

    ranks = ranks_of(machines.world_size)
    own = recipe.train.zero
    fitting = {stage: fits(rank, machines.memory_bytes) for stage, rank in ranks.items()}
    advice = None
    if not fitting.get(own, False):
        advice = advise(
            ranks_of,
            lambda world_size: may_have(recipe, world_size),
            machines.world_size,
            machines.memory_bytes,
        )
    step_s = step.flops / (machines.world_size * machines.peak_tflops * 1e12 * machines.mfu)
    return Plan(
        recipe=recipe.name,
        precision=recipe.train.precision,
        stage=own,
        machines=machines,
        micro_batch=recipe.data.global_batch // machines.world_size // recipe.train.accumulate,
        parts=inventory.parts,
        ranks=ranks,
        fits=fitting,
        advice=advice,
        step=step,
        step_s=step_s,
        checkpoint=checkpoint_bytes(inventory, recipe.train.precision, moments),
        run=_run_time(recipe, step_s, machines.world_size, sizes),
        missing=tuple(_missing(recipe, sizes)),
    )


def bytes_by_stage(
    inventory: Inventory, train: TrainPlan, world_size: int, moments: int, activations: float
) -> dict[int, RankBytes]:
    """A rank's bytes under each ZeRO stage that the precision may have, with the same options."""
    return {
        stage: bytes_per_rank(
            inventory,
            stage,
            train.precision,
            world_size,
            moments,
            train.zero_options,
            activations=activations,
        )
        for stage in range(4)
        if stage or train.precision == "fp32"
    }


def may_have(recipe: Recipe, world_size: int) -> bool:
    """Whether the batch can be cut evenly for so many ranks."""
    return recipe.data.global_batch % (world_size * recipe.train.accumulate) == 0


def known_sizes(recipe: Recipe) -> dict[str, int]:
    """Samples of the training sources that are bound.

    Raises:
        DataError: a bound data set is missing or damaged.
    """
    cache = recipe.data.cache.cache()
    return {
        name: read_dataset(source.path, cache).num_samples
        for name, source in recipe.data.sources.items()
        if source.path is not None
    }


def _missing(recipe: Recipe, sizes: Mapping[str, int]) -> list[str]:
    unknown = sorted(recipe.data.sources.keys() - sizes.keys())
    if not unknown:
        return []
    roles = " ".join(f"--data {recipe.data.sources[name].role}=PATH" for name in unknown)
    found = []
    if recipe.train.steps is None:
        found.append(
            f"steps: train.epochs counts samples of {', '.join(unknown)}, which are not bound; add "
            f"{roles}, or --set train.epochs=null --set train.steps=N"
        )
    if recipe.data.mixture.temperature is not None:
        found.append(f"shares of sources: the temperature acts on their sizes; add {roles}")
    return found


def _run_time(
    recipe: Recipe, step_s: float, world_size: int, sizes: Mapping[str, int]
) -> RunTime | None:
    if recipe.train.steps is None and sizes.keys() != recipe.data.sources.keys():
        return None
    steps = recipe.num_steps(sizes)
    hours = steps * step_s / 3600
    return RunTime(steps, hours, hours * world_size, kept_checkpoints(recipe.train, steps))

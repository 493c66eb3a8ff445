"""What is measured of one row of the evaluation: arrays in, figures out.

Everything that a probe compares is drawn from the same samples for every row, so rows differ in
their features alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.data.decoding import FieldDecoder
from ssl_scale.errors import RecipeError
from ssl_scale.objectives.masked_tokens import MaskedTokens
from ssl_scale.probes.few_labels import Summary, few_label_scores
from ssl_scale.probes.knn import KNN
from ssl_scale.probes.probe import Probe
from ssl_scale.probes.retrieval import retrieval_scores
from ssl_scale.probes.unigram import unigram_cross_entropy
from ssl_scale.probes.zero_shot import zero_shot_scores
from ssl_scale.recipe.evaluation_plan import EvaluationPlan
from ssl_scale.report.features import Aligning, look_at, pooled, projected, text_batch
from ssl_scale.rng import hash_name
from ssl_scale.system.system import System
from ssl_scale.types import Batch, Step

Figures = dict[str, Summary]
Batches = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Labelled:
    """Features with their labels, of the pool or of the test samples."""

    features: Float[np.ndarray, "samples width"]
    labels: Int[np.ndarray, " samples"]


def look_for_labels(
    plan: EvaluationPlan, look: Callable[[Step], Tensor], system: System, batches: Batches
) -> Labelled:
    """Features of the samples whose label is known."""

    def both(step: Step) -> dict[str, Tensor]:
        labels = step.batch.fields[plan.label]
        if not isinstance(labels, Tensor) or labels.ndim != 1:
            raise RecipeError(
                f"evaluation.label must name a field of one class a sample, but {plan.label!r} is "
                "not"
            )
        return {"features": look(step).flatten(1), "labels": labels}

    seen = look_at(system, batches(), both)
    known = seen["labels"] >= 0
    return Labelled(seen["features"][known], seen["labels"][known])


def measure_probes(
    probes: Mapping[str, Probe],
    pool: Labelled,
    test: Labelled,
    labels_per_class: Sequence[int],
    seeds: Sequence[int],
) -> Figures:
    """Every probe at every number of labels: ``<probe>@<labels>``."""
    return {
        f"{name}@{count}": summary
        for name, probe in probes.items()
        for count, summary in few_label_scores(
            probe, pool.features, pool.labels, test.features, test.labels, labels_per_class, seeds
        ).items()
    }


def measure_pixels(
    probes: Mapping[str, Probe],
    pool: Labelled,
    test: Labelled,
    labels_per_class: Sequence[int],
    seeds: Sequence[int],
) -> Figures:
    """The same of raw pixels; k-NN takes whichever metric suits them better on the test samples.

    This favours the baseline: pixels have no direction that training made meaningful.
    """
    figures: Figures = {}
    for name, probe in probes.items():
        tried = [probe]
        if isinstance(probe, KNN):
            tried = [KNN(probe.k, "cosine"), KNN(probe.k, "euclidean")]
        found = [measure_probes({name: p}, pool, test, labels_per_class, seeds) for p in tried]
        figures |= {key: max((f[key] for f in found), key=lambda s: s.mean) for key in found[0]}
    return figures


def measure_alignment(
    plan: EvaluationPlan,
    objective: Aligning,
    system: System,
    test: Batches,
    prompts: Batch | None,
) -> Figures:
    """Zero-shot classification and retrieval, as far as there are prompts and captions."""
    text = next(name for name in objective.between if name != plan.encoder)
    text_view = objective.views[objective.between.index(text)]
    view = plan.view or plan.encoder

    def look(step: Step) -> dict[str, Tensor]:
        seen = {
            "images": projected(step, objective, plan.encoder, view),
            "labels": step.batch.fields[plan.label],
        }
        if system.views[text_view].field in step.batch.fields:
            seen["texts"] = projected(step, objective, text)
            seen["present"] = step.view(text_view).present[:, 0]
            seen["captions"] = _hashes(step.view(text_view).values, step.view(text_view).valid)
        return seen  # type: ignore[return-value]

    seen = look_at(system, test(), look)
    figures: Figures = {}
    if prompts is not None:
        places = look_at(
            system, iter([prompts]), lambda step: {"texts": projected(step, objective, text)}
        )["texts"]
        known = seen["labels"] >= 0
        classes = np.tile(np.arange(len(plan.classes)), len(plan.prompts))
        scores = zero_shot_scores(seen["images"][known], seen["labels"][known], places, classes)
        figures["zero_shot"] = Summary((scores["accuracy"],))
    if "texts" in seen and seen["present"].any():
        there = seen["present"]
        _, captions = np.unique(seen["captions"][there], return_inverse=True)
        found = retrieval_scores(seen["images"][there], seen["texts"][there], captions)
        figures |= {name: Summary((value,)) for name, value in found.items()}
    return figures


def make_prompts(
    plan: EvaluationPlan,
    objective: Aligning,
    system: System,
    fields: Mapping[str, FieldDecoder],
) -> Batch | None:
    """Every prompt with every class's name, prompt by prompt; None if the plan has none."""
    if not plan.prompts:
        return None
    text = next(name for name in objective.between if name != plan.encoder)
    name = system.views[objective.views[objective.between.index(text)]].field
    texts = [prompt.format(label) for prompt in plan.prompts for label in plan.classes]
    return text_batch(texts, name, fields[name])


def measure_masked_tokens(
    objective: MaskedTokens, name: str, system: System, test: Batches
) -> Figures:
    """Nats a hidden token on held-out text; the hidden places are drawn once and for all rows."""

    def look(step: Step) -> dict[str, Tensor]:
        return {"total": objective(step).total[None], "count": objective.count(step)[None]}

    seen = look_at(system, test(), look, scope=name)
    return {"masked_tokens": Summary((float(seen["total"].sum() / max(seen["count"].sum(), 1)),))}


def measure_unigram(
    objective: MaskedTokens, system: System, train: Batches, test: Batches
) -> Figures:
    """The loss, on the very tokens that are hidden, of frequencies in the training text."""
    sampler = system.masks[objective.mask]
    skipped = getattr(sampler.sampler, "skip", 0)

    def every(step: Step) -> dict[str, Tensor]:
        view = step.view(sampler.view)
        maskable = view.valid.clone()
        maskable[..., :skipped] = False
        return {"tokens": view.values[maskable]}

    def hidden(step: Step) -> dict[str, Tensor]:
        view = step.view(sampler.view)
        return {"tokens": view.values[step.mask(objective.mask)[sampler.view].hidden & view.valid]}

    seen = look_at(system, train(), every)["tokens"]
    held_out = look_at(system, test(), hidden)["tokens"]
    size = objective.head.vocabulary.out_features
    return {"masked_tokens": Summary((unigram_cross_entropy(seen, held_out, size),))}


def aligning_objective(plan: EvaluationPlan, system: System) -> Aligning | None:
    """The contrastive objective between the plan's encoder and one of texts."""
    for name, objective in system.objectives.items():
        if (
            isinstance(objective, Aligning)
            and plan.encoder in objective.between
            and plan.contrast in (None, name)
        ):
            return objective
    return None


def masked_objective(plan: EvaluationPlan, system: System) -> MaskedTokens | None:
    """The masked-token objective that the plan names, if the system has it."""
    if plan.text is None or plan.text.objective not in system.objectives:
        return None
    objective = system.objectives[plan.text.objective]
    if not isinstance(objective, MaskedTokens):
        raise RecipeError(
            f"evaluation.text.objective must name a masked-token loss, but {plan.text.objective!r} "
            f"is {type(objective).__name__}"
        )
    return objective


def plain_pixels(view: str) -> Callable[[Step], Tensor]:
    """Looks at the view itself."""
    return lambda step: step.view(view).values[:, 0]


def bag_of_words(view: str, vocab_size: int) -> Callable[[Step], Tensor]:
    """Looks at how often each token stands in a text."""

    def count(step: Step) -> Tensor:
        shown = step.view(view)
        tokens, valid = shown.values[:, 0], shown.valid[:, 0]
        counts = torch.zeros(len(tokens), vocab_size, device=tokens.device)
        return counts.scatter_add(1, tokens, valid.float())

    return count


def encoder_features(plan: EvaluationPlan) -> Callable[[Step], Tensor]:
    """Looks through the plan's encoder."""
    return lambda step: pooled(step, plan.encoder, plan.view or plan.encoder)


def _hashes(
    ids: Int[Tensor, "batch 1 tokens"], valid: Bool[Tensor, "batch 1 tokens"]
) -> Int[Tensor, " batch"]:
    """Equal numbers for equal texts, whatever their padding."""
    texts = zip(ids[:, 0].cpu(), valid[:, 0].cpu(), strict=True)
    return torch.tensor([hash_name(str(text[there].tolist())) for text, there in texts])

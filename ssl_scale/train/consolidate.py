"""``ssl-scale checkpoint consolidate``: one model of the pieces that a run's processes wrote."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ssl_scale.checkpoint.finding import find_checkpoint
from ssl_scale.checkpoint.model_files import Pending, write_model_files
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.checkpoint.weights import Weights
from ssl_scale.checkpoint.whole_folder import CONFIG_NAME, whole_folder
from ssl_scale.encoders.encoder import Encoder
from ssl_scale.encoders.equivalent import NoEquivalentError
from ssl_scale.errors import CheckpointError, RecipeError
from ssl_scale.part import Spec
from ssl_scale.recipe.entry import Entry, plain
from ssl_scale.recipe.loading import load
from ssl_scale.recipe.read_part import read_part
from ssl_scale.redact import redact
from ssl_scale.system.transformers_model import as_transformers_model
from ssl_scale.types import DTYPES

FORMAT = "ssl-scale-consolidated"
VERSION = 1


@dataclass(frozen=True)
class Consolidated:
    """What was written.

    Args:
        output: the folder.
        step: of the checkpoint.
        files: those with all tensors.
        tensors: how many.
        models: encoder -> what who reads its folder must know.
        without: encoder -> why there is no folder for it.
    """

    output: Path
    step: int
    files: Sequence[str]
    tensors: int
    models: Mapping[str, str]
    without: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """For people."""
        files = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        yield f"{self.output}: step {self.step}, {self.tensors} tensors in {files}"
        for name, note in self.models.items():
            yield f"{self.output / name}: for AutoModel{f'; {note}' if note else ''}"
        for name, reason in self.without.items():
            yield f"{name}: no transformers equivalent: {reason}"


def consolidate(
    run_folder: Path,
    output: Path,
    step: int | None = None,
    teacher: str | None = None,
    dtype: str = "fp32",
    max_shard_bytes: int = 5_000_000_000,
    parts: Sequence[str] = (),
    force: bool = False,
) -> Consolidated:
    """Write whole parameters and buffers, and encoders as models of `transformers`.

    Args:
        run_folder: a run's folder, or a checkpoint in one.
        output: is made.
        step: of the checkpoint; the newest valid one unless told.
        teacher: whose copies to write in the student's place.
        dtype: of numbers that are not whole: ``fp32``, ``bf16`` or ``fp16``.
        max_shard_bytes: of a file; as much is in memory at once.
        parts: what to write, such as ``encoders.image``; everything unless told.
        force: replace a consolidated model that is there.

    Raises:
        SslScaleError: there is no such checkpoint, teacher or part, or something is in the way.
    """
    folder = find_checkpoint(run_folder, step)
    reader = Reader(folder)
    weights = Weights(reader, teacher)
    names = _chosen(weights, parts)
    recipe = _read_recipe(folder.absolute().parent.parent)
    written = DTYPES[dtype]
    with whole_folder(output, FORMAT, "assembled model", force) as draft:
        tensors = {name: _pending(weights, name, written) for name in names}
        files = write_model_files(draft, tensors, max_shard_bytes)
        about = {
            "model_type": "ssl-scale",
            "format": FORMAT,
            "version": VERSION,
            "recipe": redact(plain(recipe)),
            "step": reader.commit["step"],
            "fingerprint": reader.state.get("fingerprint"),
            "teacher": teacher,
            "dtype": str(written).removeprefix("torch."),
        }
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (draft / CONFIG_NAME).write_text(text, encoding="utf-8")
        models, without = {}, {}
        for name, entry in _encoders(recipe, weights, names).items():
            try:
                spec = _spec(recipe, name, entry)
                models[name] = _write_model(
                    draft / name, name, spec, weights, written, max_shard_bytes
                )
            except NoEquivalentError as reason:
                without[name] = str(reason)
    return Consolidated(Path(output), reader.commit["step"], files, len(names), models, without)


def _chosen(weights: Weights, parts: Sequence[str]) -> list[str]:
    for part in parts:
        if not part or not weights.below(part):
            known = sorted({".".join(name.split(".")[:2]) for name in weights.names})
            raise CheckpointError(
                f"--parts must name parts of {weights.reader.folder}, such as {known}, but one is "
                f"{part!r}"
            )
    wanted = {name for part in parts or ("",) for name in weights.below(part)}
    return [name for name in weights.names if name in wanted]


def _pending(weights: Weights, name: str, dtype: torch.dtype) -> Pending:
    kept = weights.dtype(name)
    written = dtype if kept.is_floating_point else kept
    return Pending(weights.shape(name), written, partial(weights.read, name))


def _read_recipe(run: Path) -> Entry:
    """The run's recipe as it is written; nothing that it names is imported."""
    path = run / "recipe.yaml"
    try:
        return load(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(
            f"{path} must hold the run's recipe, but cannot be read ({error}); a checkpoint is "
            "consolidated in its run's folder"
        ) from error


def _encoders(recipe: Entry, weights: Weights, names: Sequence[str]) -> dict[str, Entry]:
    """The recipe's encoders that are written whole."""
    section = recipe.at("encoders")
    return {
        name: entry
        for name, entry in (section.items if section else {}).items()
        if (below := weights.below(f"encoders.{name}")) and set(below) <= set(names)
    }


def _spec(recipe: Entry, name: str, entry: Entry) -> Spec[Encoder]:
    if foreign := next(_foreign_types(entry), None):
        raise NoEquivalentError(f"{foreign} is of another package, which is not imported here")
    own = {key: value for key, value in entry.items.items() if key != "init_from"}
    paths = recipe.at("paths")
    bound = plain(paths) if paths is not None else {}
    try:
        kind: Any = Encoder  # mypy takes abstract classes for no types
        found: Spec[Encoder] = read_part(kind, Entry(own, entry.place), f"encoders.{name}", bound)
        return found
    except RecipeError as error:
        raise NoEquivalentError(f"it cannot be read here: {error}") from error


def _foreign_types(entry: Entry) -> Iterator[str]:
    named = entry.at("type")
    if named is not None and ":" in str(named.value):
        yield str(named.value)
    for inner in entry.items.values():
        yield from _foreign_types(inner)


def _write_model(
    folder: Path,
    name: str,
    spec: Spec[Encoder],
    weights: Weights,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> str:
    model = as_transformers_model(spec, f"encoders.{name}", weights, dtype)
    folder.mkdir()
    model.write_config(folder)
    write_model_files(folder, model.tensors, max_shard_bytes)
    return model.note

"""Parts of a recipe start from what another run has learned."""

from pathlib import Path

import pytest
import torch

from ssl_scale.errors import RecipeError, SslScaleError
from ssl_scale.nn.position import resized
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.warm_start import WarmStart
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from ssl_scale.system.warm_start import start_parts
from tests.checkpoint.writing import flip, save_module
from tests.train.tiny import make_recipe

PROJECTOR = "objectives.byol.projector"


@pytest.fixture
def source(tmp_path: Path) -> System:
    """A system whose values are in the checkpoints of ``run``, written by two ranks."""
    system = build(tmp_path, "train.seed=1", norm="batch")
    with torch.no_grad():
        for parameter in system.teachers["ema"].parameters():
            parameter.mul_(2)
        for name, buffer in system.named_buffers():
            if "running" in name:
                buffer.add_(3)
    save_module(tmp_path / "run", {"": system}, 2, step=5)
    return system


def build(folder: Path, *overrides: str, norm: str = "batch", initial: bool = True) -> System:
    recipe = read_recipe(make_recipe(folder, norm), overrides)
    torch.manual_seed(recipe.train.seed)
    return build_system(recipe, initial=initial)


def start(folder: Path, entry: str, *overrides: str, initial: bool = True) -> System:
    """A system of another recipe that starts from the run."""
    plan = f"init_from=[{{run: {folder}/run, {entry}}}]"
    return build(folder, "train.seed=2", plan, *overrides, initial=initial)


def same(one: System, other: System, part: str, theirs: str = "") -> bool:
    mine = one.get_submodule(part).state_dict()
    others = other.get_submodule(theirs or part).state_dict()
    assert mine.keys() == others.keys() and mine
    return all(torch.equal(mine[name], others[name]) for name in mine)


def test_named_parts_take_their_values_and_the_rest_is_fresh(
    source: System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ssl_scale")
    system = start(tmp_path, f"parts: [encoders.image, {PROJECTOR}]")
    for part in ("encoders.image", PROJECTOR):
        assert same(system, source, part), part
        assert same(system, source, f"teachers.ema.{part}", part), part  # it follows the student
    for part in ("encoders.text", "objectives.classify", "objectives.byol.predictor"):
        assert not same(system, source, part), part
    folder = tmp_path / "run" / "checkpoints" / "step-000000005"
    assert f"encoders.image starts from 18 parameters from {folder}; fresh: nothing" in caplog.text
    told = system.started["encoders.image"]
    assert told["step"] == 5 and told["folder"] == str(folder) and told["left"] == ()
    assert set(told["matched"]) == set(system.encoders["image"].state_dict())
    running = [name for name in system.started[PROJECTOR]["matched"] if "running_mean" in name]
    assert running, "statistics of norms come along"


def test_a_resumed_run_does_not_look_at_the_other_run(source: System, tmp_path: Path) -> None:
    (tmp_path / "run").rename(tmp_path / "gone")
    system = start(tmp_path, "parts: [encoders.image]", initial=False)
    assert system.started == {}


def test_a_teachers_copies_and_other_names(source: System, tmp_path: Path) -> None:
    system = start(
        tmp_path,
        "parts: [encoders.image, objectives.byol.predictor], teacher: ema, partial: true, "
        f"rename: {{objectives.byol.predictor: {PROJECTOR}}}",
    )
    taught = source.teachers["ema"].part("encoders.image").state_dict()
    for name, value in system.encoders["image"].state_dict().items():
        assert torch.equal(value, taught[name]), name
    told = system.started["objectives.byol.predictor"]
    assert told["teacher"] == "ema" and "layers.0.weight" not in told["missing"]


def test_a_step_is_chosen(source: System, tmp_path: Path) -> None:
    later = build(tmp_path, "train.seed=3")
    save_module(tmp_path / "run", {"": later}, 1, step=9)
    assert same(start(tmp_path, "parts: [encoders.image]"), later, "encoders.image")
    system = start(tmp_path, "parts: [encoders.image], step: 5")
    assert same(system, source, "encoders.image")


def test_positions_of_another_picture_size_are_interpolated(source: System, tmp_path: Path) -> None:
    larger = ("encoders.image.size_px=16", "data.fields.image.size_px=16")
    system = start(tmp_path, "parts: [encoders.image]", *larger)
    table = source.encoders["image"].position.table
    found = system.encoders["image"].position.table
    torch.testing.assert_close(found, resized(table, (2, 2), (4, 4)))
    assert found.shape == (16, 8)
    assert system.started["encoders.image"]["reshaped"] == ("position.table [4, 8] -> [16, 8]",)
    stem = "stem.projection.weight"
    theirs = source.encoders["image"].state_dict()[stem]
    assert torch.equal(system.encoders["image"].state_dict()[stem], theirs)


def test_positions_of_shorter_texts_are_the_first_ones(source: System, tmp_path: Path) -> None:
    system = start(tmp_path, "parts: [encoders.text]", "encoders.text.max_tokens=6")
    mine, theirs = (one.encoders["text"].position.table for one in (system, source))
    assert torch.equal(mine, theirs[:6])
    with pytest.raises(SslScaleError, match=r"position.table must be \[9, 8\], but is \[8, 8\]"):
        start(tmp_path, "parts: [encoders.text]", "encoders.text.max_tokens=9")


def test_a_head_with_other_classes_is_refused_or_stays_fresh(
    source: System, tmp_path: Path
) -> None:
    other = "data.fields.label.num_classes=12"
    with pytest.raises(SslScaleError) as told:
        start(tmp_path, "parts: [objectives.classify]", other)
    for words in (
        "init_from[0]: objectives.classify: ",
        "head.linear.weight must be [12, 8], but is [10, 8]; head.linear.bias must be [12]",
        "change the part's arguments, or write `partial: true`",
    ):
        assert words in str(told.value)
    system = start(tmp_path, "parts: [objectives.classify, encoders.image], partial: true", other)
    told_of = system.started["objectives.classify"]
    assert told_of["matched"] == () and len(told_of["missing"]) == len(told_of["left"]) == 2
    fresh = build(tmp_path, "train.seed=2", other)
    assert same(system, fresh, "objectives.classify")
    assert same(system, source, "encoders.image")


def test_what_the_run_lacks_is_refused_or_stays_fresh(source: System, tmp_path: Path) -> None:
    deeper = "encoders.image.depth=2"
    with pytest.raises(
        SslScaleError, match=r"hold all of encoders.image, but lacks trunk.blocks.1"
    ):
        start(tmp_path, "parts: [encoders.image]", deeper)
    system = start(tmp_path, "parts: [encoders.image], partial: true", deeper)
    missing = system.started["encoders.image"]["missing"]
    assert missing and all(name.startswith("trunk.blocks.1.") for name in missing)


def test_what_the_part_has_no_place_for_is_told(source: System, tmp_path: Path) -> None:
    system = start(tmp_path, "parts: [encoders.image]", "encoders.image.pool=mean")
    assert system.started["encoders.image"]["left"] == ("encoders.image.prefix.tokens",)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("parts: [encoders.image], step: 6", r"one of \[5\], but is 6"),
        ("parts: [encoders.image], teacher: em", r"\['ema'\], but is 'em'"),
        (
            "parts: [encoders.image], rename: {encoders.image: encoders.vision}",
            "must hold encoders.vision, but holds .*'encoders.image'.* say under `rename`",
        ),
        (
            "parts: [objectives.byol.projektor]",
            r"objectives.byol has no 'projektor'; it has \[.*'projector'",
        ),
    ],
)
def test_what_is_not_there_is_named(entry: str, told: str, source: System, tmp_path: Path) -> None:
    with pytest.raises(SslScaleError, match=rf"init_from\[0\]: .*{told}"):
        start(tmp_path, entry)


def test_a_missing_or_damaged_run_is_named(source: System, tmp_path: Path) -> None:
    flip(tmp_path / "run" / "checkpoints" / "step-000000005" / "part-00001.safetensors")
    with pytest.raises(SslScaleError, match=r"init_from\[0\]: .*part-00001.safetensors: the byt"):
        start(tmp_path, "parts: [encoders.image]")
    (tmp_path / "run").rename(tmp_path / "gone")
    with pytest.raises(SslScaleError, match=f"{tmp_path}/run must have a checkpoint.* no such"):
        start(tmp_path, "parts: [encoders.image]")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{run: first, parts: []}", "init_from.*parts.*at least 1"),
        ("{run: first}", r"init_from\[0\].parts: must be given"),
        (
            "{run: first, parts: [encoder.image]}",
            r"parts\[0\]: must be encoders.NAME, .*did you me",
        ),
        ("{run: first, parts: [encoders.images]}", r"parts\[0\]: must be .*encoders.image"),
        (
            "{run: first, parts: [encoders.image, encoders.image.stem]}",
            r"parts\[1\]: 'encoders.image.stem' must start from one thing, but .*parts\[0\]",
        ),
        ("{run: first, parts: [encoders.image], rename: {heads.a: heads.b}}", "rename must name"),
        ("{run: first, part: [encoders.image]}", "init_from.*takes no 'part'; did you mean"),
    ],
)
def test_a_malformed_start_is_a_fault_of_the_recipe(entry: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=told):
        read_recipe(make_recipe(tmp_path), [f"init_from=[{entry}]"], {"first": "/run"})


def test_an_encoder_starts_from_one_thing(tmp_path: Path) -> None:
    overrides = [
        "encoders.image.init_from={hf: ./vit}",
        "init_from=[{run: ./run, parts: [encoders.image]}]",
    ]
    with pytest.raises(RecipeError, match=r"one thing, but encoders.image.init_from is about"):
        read_recipe(make_recipe(tmp_path), overrides)


def test_first_weights_do_not_make_another_recipe_and_paths_are_kept_whole(
    tmp_path: Path,
) -> None:
    path = make_recipe(tmp_path)
    path.write_text(path.read_text() + "init_from: [{run: ./run, parts: [encoders.image]}]\n")
    recipe = read_recipe(path)
    assert recipe.init_from[0].run == str(tmp_path / "run")
    assert recipe.fingerprint() == read_recipe(path, ["init_from=[]"]).fingerprint()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "other").init_from == recipe.init_from


def test_buffers_that_are_made_anew_are_neither_taken_nor_left(tmp_path: Path) -> None:
    parts = [torch.nn.Linear(2, 2) for _ in range(2)]
    for number, part in enumerate(parts):
        part.register_buffer("places", torch.full((3,), float(number)), persistent=False)
    save_module(tmp_path, {"part": parts[0]}, 1)
    system = torch.nn.ModuleDict({"part": parts[1]})
    reports = start_parts(system, [WarmStart(str(tmp_path), ("part",))])
    assert reports["part"].left == () and set(reports["part"].matched) == {"weight", "bias"}
    assert torch.equal(parts[1].weight, parts[0].weight)
    assert torch.equal(parts[1].get_buffer("places"), torch.ones(3))

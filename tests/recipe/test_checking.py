from pathlib import Path

import pytest

from ssl_scale.optim.schedule import Constant, Cosine
from ssl_scale.part import Spec
from ssl_scale.recipe.reading import read_recipe
from tests.recipe.parts import Everything, Hammer, Saw, Taught
from tests.recipe.writing import SOUND, faults_of, faults_with, write

HAMMER = "{type: Hammer, weight_kg: 2}"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("number: 3", 3.0),
        ("number: 1e-3", 1e-3),
        ("ratio: 0.25", 0.25),
        ("flag: true", True),
        ("text: '5'", "5"),
        ("either: [1, 2]", (1, 2)),
        ("perhaps: null", None),
        ("betas: [0, 1]", (0.0, 1.0)),
        ("scales: {a: 2}", {"a": 2.0}),
        ("several: [image, image]", ("image", "image")),
        ("by_encoder: {image: 3}", {"image": 3}),
    ],
)
def test_values_arrive_as_annotated(argument: str, value: object, tmp_path: Path) -> None:
    text = SOUND.replace("encoder: image}", f"encoder: image, {argument}}}")
    arguments = (
        read_recipe(write(tmp_path, text), require_data=False).objectives["all"].spec.arguments
    )
    found = arguments[argument.partition(":")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        ("number: lots", "number: must be a valid number, but is 'lots'"),
        ("number: '1'", "number: must be a valid number, but is '1'"),
        ("number: true", "number: must be a valid number, but is True"),
        ("number: null", "number: must be a valid number, but is None"),
        ("ratio: 1.5", "ratio: must be less than 1, but is 1.5"),
        ("count: 1.5", "count: must be a valid integer, but is 1.5"),
        ("flag: 1", "flag: must be a valid boolean, but is 1"),
        ("text: 5", "text: must be a valid string, but is 5"),
        ("either: a", "either: must be int or tuple[int, ...], but is 'a'"),
        ("betas: [0.9, x]", "betas[1]: must be a valid number, but is 'x'"),
        ("scales: {a: 1, b: 0}", "scales.b: must be greater than 0, but is 0"),
        ("encodr: image", "encodr: Everything takes no 'encodr'; did you mean 'encoder'?"),
        ("wieght: 1", "wieght: Everything takes no 'wieght'; did you mean 'weight'?"),
        ("width: 5", "width: Everything is given 'width' when it runs; a recipe cannot set it"),
        ("view: imag", "view: views has no 'imag'; did you mean 'image'?"),
        ("view: [image]", "view: must be a name in `views`, but is a list"),
        ("label: lable", "label: data.fields has no 'lable'; did you mean 'label'?"),
        ("several: [image, text]", "several[1]: encoders has no 'text'; there is image"),
        ("several: []", "several: must have at least 1 entry, but has 0"),
        ("several: image", "several: must be a list, but is 'image'"),
        ("by_encoder: {img: 3}", "by_encoder.img: encoders has no 'img'; did you mean 'image'?"),
        ("weight: lots", "weight: must be a valid number, but is 'lots'"),
        ("weight: {type: Cosine, start: 1}", "weight.end: must be given to Cosine"),
        ("weight: {start: 1}", "weight: must name its `type`; there is Constant, Cosine, Infinite, "
         "Linear, WarmupCosine, WarmupStableDecay"),
        ("weight: {type: AdamW}", "weight.type: must be a Schedule, but AdamW is not; there is "
         "Constant, Cosine, Infinite, Linear, WarmupCosine, WarmupStableDecay"),
        ("until: 2", "until: must be less than or equal to 1, but is 2"),
        ("absent: maybe", "absent: must be 'zero' or 'skip', but is 'maybe'"),
        ("tool: Hammer", "tool: must be a part, {type: ...}, but is 'Hammer'"),
        ("tool: {type: Hamer}", "tool.type: there is no Tool 'Hamer'; did you mean 'Hammer'?"),
        ("tool: {type: Tool}", "tool.type: Tool is only a frame for parts; there is Hammer, Saw"),
        ("tool: {type: Saw, teeth: 0}", "tool.teeth: must be greater than or equal to 1, but is 0"),
        ("tool: {type: Hammer, weigth_kg: 1}",
         "tool.weigth_kg: Hammer takes no 'weigth_kg'; did you mean 'weight_kg'?"),
        ("tools: [" + HAMMER + ", {type: Saw}]", "tools[1].teeth: must be given to Saw"),
        ("toolbox: {a: {type: Nail}}",
         "toolbox.a.type: there is no Tool 'Nail'; there is Hammer, Saw"),
        ("tool_or_number: {type: Hammer}", "tool_or_number.weight_kg: must be given to Hammer"),
        ("tool: {type: 'nowhere.at_all:X'}",
         "tool.type: module nowhere.at_all must be importable, but 'nowhere' cannot be imported "
         "(No module named 'nowhere'); install it or set PYTHONPATH"),
        ("tool: {type: 'json:Nothing'}", "tool.type: module json has no class 'Nothing'"),
        ("tool: {type: 'os:system'}", "tool.type: module os has no class 'system'"),
    ],
)  # fmt: skip
def test_each_kind_of_fault_is_told_with_its_line_and_path(
    argument: str, fault: str, tmp_path: Path
) -> None:
    assert faults_with(tmp_path, argument) == [f"13: objectives.all.{fault}"]


def test_nested_parts_become_specs_and_build(tmp_path: Path) -> None:
    argument = (
        f"tools: [{HAMMER}, {{type: Saw, teeth: 3, coating: {HAMMER}}}], toolbox: {{a: {HAMMER}}},"
        f" tool_or_number: {HAMMER}"
    )
    text = SOUND.replace("encoder: image}", f"encoder: image, {argument}}}")
    spec = read_recipe(write(tmp_path, text), require_data=False).objectives["all"].spec
    assert spec.arguments["tool_or_number"].part is Hammer
    built = spec.build(width=8)
    assert isinstance(built, Everything)
    hammer, saw = built.tools
    assert isinstance(hammer, Hammer) and hammer.weight_kg == 2.0
    assert isinstance(saw, Saw) and saw.teeth == 3
    assert isinstance(saw.coating, Hammer)
    assert built.toolbox is not None and isinstance(built.toolbox["a"], Spec)
    assert built.toolbox["a"].build().use() == "hit"
    assert built.toolbox["a"].path == "objectives.all.toolbox.a"


def test_a_bare_number_is_a_constant_schedule(tmp_path: Path) -> None:
    text = SOUND.replace("encoder: image}", "encoder: image, weight: 2, schedule: 0.5}")
    objective = read_recipe(write(tmp_path, text), require_data=False).objectives["all"]
    assert objective.weight.part is Constant
    assert objective.weight.build()(0.3) == 2.0
    assert objective.spec.arguments["schedule"].build()(0.9) == 0.5


def test_reserved_keys_of_an_objective(tmp_path: Path) -> None:
    keys = "weight: {type: Cosine, start: 1, end: 0}, from: 0.2, until: 0.8, absent: skip"
    text = SOUND.replace("encoder: image}", f"encoder: image, {keys}}}")
    objective = read_recipe(write(tmp_path, text), require_data=False).objectives["all"]
    assert (objective.start, objective.until, objective.absent) == (0.2, 0.8, "skip")
    assert objective.weight.part is Cosine
    assert objective.spec.arguments == {"encoder": "image"}


def test_an_objective_must_start_before_it_ends(tmp_path: Path) -> None:
    assert faults_with(tmp_path, "from: 0.8, until: 0.2") == [
        "13: objectives.all: `from` must be below `until`, but is 0.8, and until is 0.2"
    ]


def test_a_default_that_names_a_missing_entry_is_a_fault(tmp_path: Path) -> None:
    text = SOUND.replace("    label: {type", "    lable: {type").replace(
        "[image, label]", "[image]"
    )
    assert faults_of(write(tmp_path, text)) == [
        "13: objectives.all.label: data.fields has no 'label'; did you mean 'lable'?"
    ]


def test_missing_and_unknown_sections(tmp_path: Path) -> None:
    text = SOUND.replace("optim:", "optimizer:").replace("train: {steps: 10}", "")
    assert faults_of(write(tmp_path, text)) == [
        "1: train: must be given",
        "14: optimizer: this section takes no 'optimizer'; did you mean 'optim'?",
    ]


def test_an_empty_recipe_lists_what_it_needs(tmp_path: Path) -> None:
    missing = ["data", "encoders", "objectives", "optim", "train"]
    assert faults_of(write(tmp_path, "{}")) == [f"1: {name}: must be given" for name in missing]


def test_three_faults_are_reported_with_their_three_lines(tmp_path: Path) -> None:
    text = (
        SOUND.replace("size_px: 8", "size_pxx: 8")
        .replace("lr: 0.1", "lr: fast")
        .replace("encoder: image}", "encoder: imgae}")
    )
    assert faults_of(write(tmp_path, text)) == [
        "4: data.fields.image.size_pxx: ImageField takes no 'size_pxx'; did you mean 'size_px'?",
        "13: objectives.all.encoder: encoders has no 'imgae'; did you mean 'image'?",
        "14: optim.lr: must be a valid number, but is 'fast'",
    ]


def test_an_objective_that_names_no_teacher_means_the_only_one(tmp_path: Path) -> None:
    taught = SOUND.replace(":Everything", f":{Taught.__name__}")
    teachers = [f"  {name}: {{type: EMATeacher, momentum: 0.9}}\n" for name in ("ema", "slow")]
    assert faults_of(write(tmp_path, taught)) == [
        "13: objectives.all.teacher: must name a teacher; there is none"
    ]
    one = taught + "teachers:\n" + teachers[0]
    assert faults_of(write(tmp_path, one)) == []
    assert faults_of(write(tmp_path, one + teachers[1])) == [
        "13: objectives.all.teacher: must name a teacher; there is ema, slow"
    ]

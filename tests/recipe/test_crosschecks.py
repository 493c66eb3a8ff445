from pathlib import Path

import pytest

from tests.recipe.writing import SOUND, faults_of, write

SECOND = '  second: {type: "tests.recipe.parts:Everything", encoder: image}\noptim:'


def test_a_sound_recipe_has_no_faults(tmp_path: Path) -> None:
    assert faults_of(write(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (
            "optim:",
            SECOND,
            ["14: objectives.second: must be fed by a source, but no source under data.sources "
             "feeds it"],
        ),
        ("feeds: [all]", "feeds: []",
         ["7: data.sources.digits.feeds: must have at least 1 entry, but has 0"]),
        (", feeds: [all]", "", ["7: data.sources.digits.feeds: must be given"]),
        ("feeds: [all]", "feeds: [al]",
         ["7: data.sources.digits.feeds[0]: objectives has no 'al'; did you mean 'all'?"]),
        ("fields: [image, label]", "fields: [label]",
         ["7: data.sources.digits.fields: must hold 'image', which objectives.all reads, but is "
          "['label']"]),
        ("fields: [image, label]", "fields: [image]",
         ["7: data.sources.digits.fields: must hold 'label', which objectives.all reads, but is "
          "['image']"]),
        ("fields: [image, label]", "fields: [image, lable]",
         ["7: data.sources.digits.fields[1]: data.fields has no 'lable'; did you mean 'label'?",
          "7: data.sources.digits.fields: must hold 'label', which objectives.all reads, but is "
          "['image', 'lable']"]),
        ("  image: {type: ImageView, field: image}", "  images: {type: ImageView, field: image}",
         ["13: objectives.all.encoder: reads the view 'image', named like its encoder, but views "
          "has no 'image'; add it, or name another; did you mean 'images'?"]),
        ("train: {steps: 10}", "train: {}",
         ["15: train: must have either steps or epochs, but neither is given"]),
        ("train: {steps: 10}", "train: {steps: 10, epochs: 2}",
         ["15: train: must have either steps or epochs, but both are given"]),
        ("train: {steps: 10}", "train: {steps: 10, accumulate: 5}",
         ["15: train.accumulate: must divide data.global_batch, 12, but is 5"]),
        ("train: {steps: 10}", "masks: {m: {type: RandomMask, view: image, ratio: 0.5, encoder: x}}"
         "\ntrain: {steps: 10}", ["15: masks.m.encoder: encoders has no 'x'; there is image"]),
        ("train: {steps: 10}", "masks: {m: {type: RandomMask, view: label, ratio: 0.5}}"
         "\ntrain: {steps: 10}",
         ["15: masks.m.view: views has no 'label'; there is image",
          "15: masks.m.encoder: must be named, for encoders has no 'label', named like the view; "
          "there is image"]),
    ],
)  # fmt: skip
def test_rules_between_entries(old: str, new: str, faults: list[str], tmp_path: Path) -> None:
    assert old in SOUND
    assert sorted(faults_of(write(tmp_path, SOUND.replace(old, new)))) == sorted(faults)


def test_losses_over_pairs_refuse_micro_batches_and_say_why(tmp_path: Path) -> None:
    text = SOUND.replace(":Everything", ":Paired")
    assert faults_of(write(tmp_path, text)) == []
    assert faults_of(write(tmp_path, text), "train.accumulate=2") == [
        "--set train.accumulate: train.accumulate: must be 1, but is 2: objectives.all (Paired) "
        "compares the samples of a batch with each other, and would compare fewer of them in "
        "micro-batches"
    ]


@pytest.mark.parametrize("targets", ["Centring", "SinkhornKnopp"])
def test_a_loss_with_a_part_over_the_whole_batch_refuses_micro_batches(
    targets: str, tmp_path: Path
) -> None:
    dino = f"DINO, head: {{type: PrototypeHead, prototypes: 8}}, targets: {{type: {targets}}}"
    text = SOUND.replace(
        '"tests.recipe.parts:Everything"', f"{dino}, teacher_temperature: 0.04, view: image"
    ).replace("optim:", "teachers: {ema: {type: EMATeacher, momentum: 0.9}}\noptim:")
    assert faults_of(write(tmp_path, text)) == []
    faults = faults_of(write(tmp_path, text), "train.accumulate=2")
    assert [("must be 1" in fault, targets in fault) for fault in faults] == (
        [(True, True)] if targets == "SinkhornKnopp" else []
    )


def test_other_losses_may_be_cut_into_micro_batches(tmp_path: Path) -> None:
    assert faults_of(write(tmp_path, SOUND), "train.accumulate=2") == []


def test_validation_sources_must_hold_what_they_feed(tmp_path: Path) -> None:
    held_out = "  validation: {held_out: {data: test, fields: [image], feeds: [all]}}\nviews:"
    assert faults_of(write(tmp_path, SOUND.replace("views:", held_out))) == [
        "8: data.validation.held_out.fields: must hold 'label', which objectives.all reads, but is "
        "['image']"
    ]


def test_the_view_of_an_objectives_mask_counts_as_read(tmp_path: Path) -> None:
    text = (
        SOUND.replace('"tests.recipe.parts:Everything"', "MaskedPixels, mask: m")
        .replace("optim:", "masks: {m: {type: RandomMask, view: image, ratio: 0.5}}\noptim:")
        .replace("fields: [image, label]", "fields: [label]")
    )
    faults = faults_of(write(tmp_path, text))
    assert (
        "7: data.sources.digits.fields: must hold 'image', which objectives.all reads, but is "
        "['label']"
    ) in faults

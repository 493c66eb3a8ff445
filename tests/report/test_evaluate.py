import csv
import json
import shutil

import numpy as np
import pytest
import torch

from ssl_scale.cli.main import main
from ssl_scale.errors import DataError, RecipeError, UnboundDataError
from ssl_scale.probes.few_labels import Summary
from ssl_scale.probes.unigram import unigram_cross_entropy
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.report.evaluate import evaluate
from ssl_scale.report.features import look_at, open_held_out, pooled, read_batches
from ssl_scale.report.gallery import Gallery
from ssl_scale.report.measure import aligning_objective
from ssl_scale.report.page import write_report
from ssl_scale.report.pictures import update_gallery
from ssl_scale.report.results import describe_differences
from ssl_scale.system.build import build_fields
from ssl_scale.train.trained import build_untrained, read_trained
from tests.plain_run import VOCAB_SIZE, plain_run, save_checkpoint


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return plain_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def result(run_folder):
    return evaluate([run_folder], seeds=2)


def _cells(result, label):
    (row,) = [row for row in result["rows"] if row["label"] == label]
    return row["cells"]


def test_every_row_has_the_columns_that_it_can_have(result):
    probes = {"k-NN@1", "k-NN@5", "linear probe@1", "linear probe@5"}
    assert set(_cells(result, "raw pixels")) == probes
    assert set(_cells(result, "unigram")) == {"masked_tokens"}
    for label in ("untrained encoder", "first"):
        assert set(_cells(result, label)) > probes | {"zero_shot", "masked_tokens"}
        assert "image_to_text/recall@1" in _cells(result, label)


def test_seeds_choose_labelled_subsets(result):
    cell = _cells(result, "first")["k-NN@1"]
    assert len(cell["values"]) == 2
    assert cell["mean"] == pytest.approx(np.mean(cell["values"]))
    assert cell["spread"] == pytest.approx(np.std(cell["values"], ddof=1))


def test_raw_pixels_are_as_strong_as_they_are_known_to_be(result):
    """One nearest neighbour on digits gets 0.53 to 0.72 with one label, 0.81 to 0.86 with five."""
    pixels = _cells(result, "raw pixels")
    assert 0.50 < pixels["k-NN@1"]["mean"] < 0.75
    assert 0.78 < pixels["k-NN@5"]["mean"] < 0.90


def test_training_lowers_the_masked_token_loss(result):
    trained, untrained = (
        _cells(result, label)["masked_tokens"]["mean"] for label in ("first", "untrained encoder")
    )
    assert trained < untrained - 0.5
    assert untrained > np.log(VOCAB_SIZE) - 0.1  # it knows nothing of its tokens


def test_the_unigram_is_measured_on_the_tokens_that_are_hidden(run_folder, result):
    trained = read_trained(run_folder)
    plan, fields = trained.recipe.evaluation, build_fields(trained.recipe)
    tokens = {"train": [], "test": []}
    for name, data in (("train", plan.text.train), ("test", plan.text.test)):
        source = open_held_out(data, {"caption": fields["caption"]}, seed=0)
        for batch in read_batches(source):
            step = trained.system.answers(batch).named("mlm")
            view, hidden = step.view("caption"), step.mask("words")["caption"].hidden
            chosen = view.valid.clone() if name == "train" else hidden & view.valid
            chosen[..., 0] = False  # [CLS] is never hidden
            tokens[name].append(view.values[chosen])
    expected = unigram_cross_entropy(*(torch.cat(t).numpy() for t in tokens.values()), VOCAB_SIZE)
    assert _cells(result, "unigram")["masked_tokens"]["mean"] == pytest.approx(expected)


def test_the_table_is_written_as_json_and_csv(run_folder, result):
    assert json.loads((run_folder / "evaluation.json").read_text()) == result
    text = (run_folder / "evaluation.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["row"] for row in rows] == ["raw pixels", "untrained encoder", "first", "unigram"]
    assert float(rows[2]["k-NN@1"]) == _cells(result, "first")["k-NN@1"]["mean"]
    assert rows[0]["zero_shot"] == ""


def test_runs_get_rows_under_their_labels_and_teachers_differ(run_folder, tmp_path, capsys):
    output = tmp_path / "table.json"
    arguments = ["evaluate", str(run_folder), "--label", "the teacher", "--teacher", "ema"]
    short = ["--seeds", "1", "--set", "evaluation.labels_per_class=[1]", "--output", str(output)]
    assert main([*arguments, *short]) == 0
    printed = capsys.readouterr()
    assert "the teacher" in printed.out and "1 label" in printed.out
    assert "untrained encoder" in printed.err  # progress
    taught = json.loads(output.read_text())
    labels = [row["label"] for row in taught["rows"]]
    assert labels == ["raw pixels", "untrained encoder", "the teacher", "unigram"]
    assert taught["teacher"] == "ema"


def test_a_run_without_text_is_measured_as_the_first_is(run_folder, tmp_path):
    gone = ["evaluation", "objectives.clip", "objectives.mlm", "encoders.text", "masks.words",
            "views.caption", "data.sources.captioned", "data.sources.texts",
            "data.fields.caption"]  # fmt: skip
    recipe = read_recipe(run_folder, [f"{path}=null" for path in gone])
    other = tmp_path / "pictures only"
    other.mkdir()
    (other / "recipe.yaml").write_text(recipe.to_yaml())
    save_checkpoint(other, build_untrained(recipe), 1, recipe.fingerprint())
    output = tmp_path / "table.json"
    short = ["evaluation.labels_per_class=[1]"]
    table = evaluate([run_folder, other], short, seeds=1, output=output)
    assert set(_cells(table, "pictures only")) == {"k-NN@1", "linear probe@1"}
    assert "zero_shot" in _cells(table, "first")
    assert _cells(table, "pictures only") != {
        name: cell for name, cell in _cells(table, "first").items() if "@1" in name
    }


def test_the_teachers_copies_take_the_students_place(run_folder):
    student, teacher = read_trained(run_folder), read_trained(run_folder, teacher="ema")
    ours = student.system.encoders["image"].state_dict()
    theirs = teacher.system.encoders["image"].state_dict()
    copies = student.system.teachers["ema"].part("encoders.image").state_dict()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(copies[name], theirs[name]) for name in copies)


def test_an_encoder_of_texts_is_compared_with_a_bag_of_words(run_folder, tmp_path):
    """Captions name the digit, so the words that a caption holds tell it."""
    settings = ["evaluation.encoder=text", "evaluation.view=caption", "evaluation.text=null"]
    shown = ["evaluation.pool.split=test", "evaluation.labels_per_class=[5]"]
    output = tmp_path / "table.json"
    table = evaluate([run_folder], [*settings, *shown], seeds=2, output=output)
    assert [row["label"] for row in table["rows"]] == ["bag of words", "untrained encoder", "first"]
    assert _cells(table, "bag of words")["linear probe@5"]["mean"] > 0.9


def test_sigmoid_contrast_aligns_two_encoders_too(run_folder):
    other = "between: [image, text], views: [image, caption]"
    projector = "projector: {type: LinearProjector, out: 8}"
    recipe = read_recipe(
        run_folder, [f"objectives.clip={{type: SigmoidContrast, {other}, {projector}}}"]
    )
    system = build_untrained(recipe)
    assert aligning_objective(recipe.evaluation, system) is system.objectives["clip"]


def test_features_do_not_depend_on_the_batch_size(run_folder):
    trained = read_trained(run_folder)
    plan, fields = trained.recipe.evaluation, build_fields(trained.recipe)
    source = open_held_out(plan.test, {"image": fields["image"]}, seed=0)

    def look(step):
        return {"features": pooled(step, "image", "image")}

    whole, cut = (
        look_at(trained.system, read_batches(source, size), look)["features"] for size in (360, 7)
    )
    np.testing.assert_allclose(whole, cut, atol=1e-5)


def test_a_recipe_without_the_section_is_told_so(run_folder):
    with pytest.raises(RecipeError, match="must have an `evaluation` section .* but has none"):
        evaluate([run_folder], overrides=["evaluation=null"])


def test_too_few_labels_are_told(run_folder):
    with pytest.raises(DataError, match="pool must have 500 samples of every class, but has 1"):
        evaluate([run_folder], overrides=["evaluation.labels_per_class=[500]"])


def test_data_that_is_not_bound_is_told(run_folder):
    with pytest.raises(UnboundDataError, match="role 'elsewhere' .* --data elsewhere=PATH"):
        evaluate([run_folder], overrides=["evaluation.pool.data=elsewhere"])


def test_labels_must_be_as_many_as_runs(run_folder):
    with pytest.raises(RecipeError, match="must be 1 different names, one a run, but are"):
        evaluate([run_folder], labels=["one", "two"])


def test_training_does_not_need_the_data_to_evaluate_on(run_folder):
    recipe = read_recipe(run_folder, ["evaluation.pool.data=elsewhere"])
    assert recipe.evaluation is not None and recipe.evaluation.pool.path is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.encoder=picture", "encoders has no 'picture'"),
        ("evaluation.prompts=[no place]", "prompts must hold one {} each"),
        ("evaluation.classes=[]", "classes must be named where there are prompts"),
        ("evaluation.pol=1", "did you mean 'pool'"),
    ],
)
def test_faults_of_the_section_are_found_before_anything_is_built(run_folder, override, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(run_folder, [override])


def test_pictures_come_from_the_newest_checkpoint(run_folder):
    gallery = update_gallery(run_folder)
    assert gallery is not None and gallery.step == 60
    assert gallery.queries.shape[1:] == (8, 8, 3)
    assert len(gallery.neighbours) == len(gallery.queries) == 8
    assert len(set(gallery.query_labels.tolist())) == 8  # one of each class first
    assert all("stroke" in name or "a " in name for name in gallery.query_names)  # captions
    assert gallery.points.shape == (360, 2)
    kept = (gallery.masked == gallery.originals).all(-1)
    assert 0.4 < kept.mean() < 0.65  # half of the patches are shown
    shown = kept[..., None] & (gallery.masked == gallery.predictions)
    assert shown.mean() > 0.4


def test_pictures_are_not_computed_twice(run_folder):
    update_gallery(run_folder)
    path = run_folder / "pictures.npz"
    before = path.stat().st_mtime_ns
    assert isinstance(update_gallery(run_folder), Gallery)
    assert path.stat().st_mtime_ns == before


def test_the_report_shows_the_evaluation_and_the_pictures(run_folder, result):
    page = write_report(run_folder).read_text()
    assert 'id="evaluation"' in page and 'id="pictures"' in page
    assert "could not be computed" not in page
    assert f"{100 * _cells(result, 'first')['k-NN@5']['mean']:.1f}" in page


def test_a_report_without_its_data_says_so_and_keeps_the_curves(run_folder, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run_folder, moved)
    (moved / "pictures.npz").unlink(missing_ok=True)
    recipe = (moved / "recipe.yaml").read_text()
    (moved / "recipe.yaml").write_text(recipe.replace("/shards", "/gone"))
    page = write_report(moved).read_text()
    assert "The pictures could not be computed" in page and 'id="losses"' in page


def test_rows_are_compared_seed_by_seed() -> None:
    def row(*values: float) -> dict[str, Summary]:
        return {"k-NN@1": Summary(values)}

    rows = {"mixture": row(0.8, 0.9, 0.7), "other": row(0.78, 0.87, 0.69), "words": {}}
    (line,) = describe_differences(rows, "mixture", ["k-NN"], [1])
    assert line == "mixture minus other, seed by seed: k-NN@1 +2.0 ± 1.0."

import subprocess
import sys
from pathlib import Path

import pytest

from ssl_scale.errors import RecipeError, UnboundDataError
from ssl_scale.recipe import finding
from ssl_scale.recipe.finding import find_recipe, list_recipes
from ssl_scale.recipe.reading import read_recipe
from tests.recipe.writing import SOUND, faults_of, write


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_SCALE_DATA", str(tmp_path / "none.yaml"))


def test_the_resolved_recipe_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    write(tmp_path, SOUND, "_base/sound.yaml")
    text = "extends: _base/sound.yaml\ndata: {sources: {digits: {data: ./digits}}}\n"
    path = write(tmp_path, text, "mine.yaml")
    recipe = read_recipe(path, ["optim.lr=1e-5", "train.seed=3"])
    again = read_recipe(write(tmp_path, recipe.to_yaml(), "runs/first/recipe.yaml"))
    assert again.resolved == recipe.resolved
    assert (again.name, again.fingerprint()) == ("mine", recipe.fingerprint())
    assert again.data == recipe.data
    assert again.train.seed == 3
    assert again.optim.arguments["lr"].arguments["value"] == 1e-5
    assert read_recipe(tmp_path / "runs/first").path == tmp_path / "runs/first/recipe.yaml"


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("steps: 10", "epochs: 7, seed: 5, log_every: 1", True),
        ("lr: 0.1", "lr: 0.2", True),
        ("global_batch: 12", "global_batch: 24", True),
        ("data: digits", "data: other", True),
        ("encoder: image}", "encoder: image, ratio: 0.5, number: 1}", True),
        ("encoder: image}", "encoder: image, weight: 1}", True),
        ("encoder: image}", "encoder: image, ratio: 0.6}", False),
        ("encoder: image}", "encoder: image, weight: 2}", False),
        ('TinyEncoder"', 'TinyEncoder", width: 16', False),
        ("num_classes: 10", "num_classes: 11", False),
        ("optim:", "teachers: {ema: {type: EMATeacher, momentum: 0.9}}\noptim:", False),
    ],
)
def test_the_fingerprint_tells_what_is_trained(
    old: str, new: str, is_same: bool, tmp_path: Path
) -> None:
    before = read_recipe(write(tmp_path, SOUND), require_data=False).fingerprint()
    changed = write(tmp_path, SOUND.replace(old, new), "changed.yaml")
    assert (read_recipe(changed, require_data=False).fingerprint() == before) is is_same


def test_unbound_data_is_another_error_than_a_wrong_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    with pytest.raises(UnboundDataError, match=r"mine.yaml:7: data.sources.digits.data") as caught:
        read_recipe(path)
    assert caught.value.exit_code == 3
    assert "--data digits=PATH" in str(caught.value)
    with pytest.raises(RecipeError) as wrong:
        read_recipe(path, ["train.zero=9"])
    assert wrong.value.exit_code == 2


def test_where_a_role_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def path_of(recipe: Path, **bindings: str) -> str | None:
        return read_recipe(recipe, (), bindings).data.sources["digits"].path

    monkeypatch.chdir(tmp_path)
    user_file = write(tmp_path, "digits: user\nunused: x\n", "config/data.yaml")
    monkeypatch.setenv("SSL_SCALE_DATA", str(user_file))
    plain = write(tmp_path, SOUND, "a/plain.yaml")
    assert path_of(plain) == str(tmp_path / "config/user")
    bound = write(tmp_path, SOUND + "paths: {digits: ../recipe}\n", "a/bound.yaml")
    assert path_of(bound) == str(tmp_path / "recipe")
    assert path_of(bound, digits="line") == str(tmp_path / "line")
    assert path_of(bound, digits="s3://bucket/digits") == "s3://bucket/digits"
    assert read_recipe(bound).paths == {"digits": str(tmp_path / "recipe")}


def test_a_source_may_name_a_path_and_a_split(tmp_path: Path) -> None:
    text = SOUND.replace("data: digits", "data: ./shards/digits, split: train")
    source = read_recipe(write(tmp_path, text)).data.sources["digits"]
    assert source.path == str(tmp_path / "shards/digits/train")
    assert source.role == str(tmp_path / "shards/digits")


def test_arguments_that_name_a_role_become_its_path(tmp_path: Path) -> None:
    text = SOUND.replace("encoder: image}", "encoder: image, manual: handbook}")
    path = write(tmp_path, text)
    with pytest.raises(UnboundDataError, match="objectives.all.manual: role 'handbook'"):
        read_recipe(path, (), {"digits": "/d"})
    recipe = read_recipe(path, (), {"digits": "/d", "handbook": "/h"})
    assert recipe.objectives["all"].spec.arguments["manual"] == "/h"
    assert recipe.resolved["objectives"]["all"]["manual"] == "handbook"
    assert recipe.fingerprint() == read_recipe(path, require_data=False).fingerprint()


def test_malformed_bindings_are_faults(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND + "paths: {digits: 5}\n")
    assert faults_of(path) == ["16: paths.digits: must be a path, but is 5"]
    assert faults_of(write(tmp_path, SOUND), digts="/d") == [
        "--data digts: : nothing in the recipe names this role; did you mean 'digits'?"
    ]
    (fault,) = faults_of(write(tmp_path, SOUND), digits="https://me:secret@host/d")
    assert "must not hold a password" in fault and "secret" not in fault


def test_epochs_count_samples_of_all_sources(tmp_path: Path) -> None:
    second = "    more: {data: more, fields: [image, label], feeds: [all]}\nviews:"
    text = SOUND.replace("steps: 10", "epochs: 1.5").replace("views:", second)
    samples = {"digits": 100, "more": 21}
    path = write(tmp_path, text)
    assert read_recipe(path, require_data=False).num_steps(samples) == 16  # ceil(181.5 / 12)
    # Where all sources share a step, they share its batch.
    every = read_recipe(path, ["data.per_step=all"], require_data=False)
    assert every.num_steps(samples) == 16
    assert read_recipe(write(tmp_path, SOUND), require_data=False).num_steps({}) == 10


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped recipes."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(finding, "shipped_folder", lambda: folder)
    write(folder, SOUND, "_base/vision.yaml")
    write(folder, "extends: ../_base/vision.yaml\n", "vision/simclr.yaml")
    write(folder, "extends: _base/vision\n", "demo.yaml")
    return folder


def test_shipped_recipes_are_found_by_name_from_any_folder(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert list_recipes() == ["demo", "vision/simclr"]
    assert find_recipe("vision/simclr") == shipped / "vision/simclr.yaml"
    recipe = read_recipe("vision/simclr", require_data=False)
    assert recipe.name == "vision/simclr"


@pytest.mark.usefixtures("shipped")
def test_an_unknown_recipe_lists_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'vision/simclar'; did you mean 'vision/simclr'\?"):
        find_recipe("vision/simclar")


def test_finding_and_listing_import_no_torch() -> None:
    code = (
        "import sys; from ssl_scale.recipe import list_recipes; list_recipes();"
        "print('torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_names_of_the_room_are_loaded_on_first_use() -> None:
    import ssl_scale.recipe as room

    assert room.read_recipe is read_recipe
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        room.nothing  # noqa: B018

"""Every recipe that is shipped: sound as it stands; shrunk, it trains on real data and resumes."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from ssl_scale.cli.main import main
from ssl_scale.errors import UnboundDataError
from ssl_scale.recipe.finding import list_recipes
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.recipe.recipe import Recipe
from tests.benchmarks import _demo
from tests.distributed import run_ranks
from tests.recipes.shrinking import shrunk
from tests.recipes.small_shards import write_roles
from tests.train.tiny import PRELOAD, saved, train_plainly

STEPS, SAVED = 3, 2


def _is_system(name: str) -> bool:
    return read_recipe(name, require_data=False).system is not None


RECIPES = list_recipes()
SYSTEMS = [name for name in RECIPES if _is_system(name)]
DEMOS = [name for name in RECIPES if name.startswith("demo")]
SMALL = [name for name in RECIPES if name.startswith("small/")]


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_SCALE_DATA", str(tmp_path / "none.yaml"))


@pytest.fixture(scope="module")
def roles(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return write_roles(test_data, tmp_path_factory.mktemp("roles"))


@pytest.fixture(scope="module")
def demo_roles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("demo")
    _demo.make_data(folder)
    return _demo.bindings(folder)


def bindings(name: str, roles: Mapping[str, str]) -> dict[str, str]:
    """The paths of the roles that a recipe names."""
    text = json.dumps(read_recipe(name, require_data=False).resolved)
    return {role: path for role, path in roles.items() if f'"{role}"' in text}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_sound_and_lacks_nothing_but_data(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", name]) == 3
    assert "is sound, but data that it names has no path yet" in capsys.readouterr().err
    with pytest.raises(UnboundDataError):
        read_recipe(name)


@pytest.mark.parametrize("name", SYSTEMS)
def test_its_proof_is_a_test_that_exists(name: str) -> None:
    system = read_recipe(name, require_data=False).system
    assert system is not None and system.name == name.rpartition("/")[2]
    file, _, test = system.proof.partition("::")
    function = test.partition("[")[0]
    assert f"def {function}(" in (Path(__file__).parents[2] / file).read_text()
    assert test == f"{function}[{name}]"


@pytest.mark.parametrize("name", [*SYSTEMS, *SMALL])
def test_bound_to_data_it_is_sound_with_all_parts_built(
    name: str, roles: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(name, require_data=False)
    settings = [f"--set={text}" for text in shrunk(recipe, STEPS) if name in SYSTEMS]
    data = [f"--data={role}={path}" for role, path in bindings(name, roles).items()]
    assert main(["check", name, "--build", *settings, *data]) == 0
    assert f"{name} is sound" in capsys.readouterr().out


@pytest.mark.parametrize("name", SYSTEMS)
def test_shrunk_its_losses_are_finite(name: str, roles: Mapping[str, str]) -> None:
    recipe = read_recipe(name, require_data=False)
    paths = [f"paths.{role}={path}" for role, path in bindings(name, roles).items()]
    outcome = train_plainly(Path(name), *shrunk(recipe, STEPS), *paths, num_steps=SAVED)
    assert [step.keys() for step in outcome.losses] == [loss_names(recipe)] * SAVED
    assert all(math.isfinite(loss) for step in outcome.losses for loss in step.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_at_its_own_size_its_losses_are_finite(name: str, roles: Mapping[str, str]) -> None:
    paths = [f"paths.{role}={path}" for role, path in bindings(name, roles).items()]
    settings = ("data.global_batch=8", "data.window=16", "data.streams=4")
    outcome = train_plainly(Path(name), *settings, *paths, num_steps=SAVED)
    expected = loss_names(read_recipe(name, require_data=False))
    assert [step.keys() for step in outcome.losses] == [expected] * SAVED
    assert all(math.isfinite(loss) for step in outcome.losses for loss in step.values())


def fit_here(name: str, folder: Path, overrides: list[str], data: dict[str, str]) -> None:
    """``ssl-scale fit`` as one rank."""
    from ssl_scale.train.fit import fit

    fit(read_recipe(name, overrides, data), folder)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_and_resumes_bit_for_bit(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe = read_recipe(name, require_data=False)
    if name in DEMOS:
        overrides, data = [f"train.steps={STEPS}", "train.log_every=1"], "demo_roles"
    else:
        overrides, data = shrunk(recipe, STEPS), "roles"
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    roles = bindings(name, request.getfixturevalue(data))
    settings = ([*overrides, f"train.save_every={SAVED}"], roles)
    run_ranks(fit_here, 2, name, straight, *settings, preload=PRELOAD)
    newest = straight / "checkpoints" / f"step-{SAVED:09d}"
    shutil.copytree(newest, resumed / "checkpoints" / newest.name)
    run_ranks(fit_here, 2, name, resumed, *settings, preload=PRELOAD)

    assert losses(straight).keys() == loss_names(recipe)
    assert all(map(math.isfinite, losses(straight).values()))
    assert len(steps(straight)) == STEPS and len(steps(resumed)) == STEPS - SAVED
    one, other = saved(straight), saved(resumed)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    for teacher in recipe.teachers:
        assert any(f"/teachers.{teacher}." in key for key in one)


def loss_names(recipe: Recipe) -> set[str]:
    """What the losses of a step are recorded as."""
    return {f"loss/{objective}" for objective in recipe.objectives}


def steps(folder: Path) -> list[dict[str, float]]:
    """What was recorded of every training step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"]


def losses(folder: Path) -> dict[str, float]:
    """The losses of the last training step."""
    return {name: value for name, value in steps(folder)[-1].items() if name.startswith("loss/")}

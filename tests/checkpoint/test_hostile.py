"""A checkpoint from somewhere else is data: nothing in it is ever run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint import layout
from ssl_scale.checkpoint.reader import Reader
from ssl_scale.checkpoint.verification import verify
from ssl_scale.cli.main import main
from ssl_scale.errors import CheckpointError
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.train.checkpoint.choosing import choose
from ssl_scale.train.trained import read_trained
from tests.checkpoint.writing import save_module, seal_again
from tests.train.tiny import make_recipe


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.marker,)


def harmful(kind: str, marker: Path) -> bytes:
    """A pickle, or what torch saves with one in it."""
    if kind == "pickle":
        return pickle.dumps(Harm(marker))
    path = marker.with_name("saved.pt")
    torch.save({"w": Harm(marker)}, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    recipe = read_recipe(make_recipe(folder))
    state = {"fingerprint": recipe.fingerprint()}
    save_module(folder / "run", {"": build_system(recipe)}, 1, **state)
    (folder / "run" / "recipe.yaml").write_text(recipe.to_yaml())
    return folder / "run"


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def read_all(folder: Path) -> None:
    reader = Reader(folder)
    for key in reader.keys:
        reader.read_whole(key)


def choose_and_read(folder: Path) -> None:
    fingerprint = read_recipe(folder.parents[1]).fingerprint()
    source = choose(folder.parent, fingerprint)
    if source is None:
        raise CheckpointError("passed over")
    read_all(source.folder)


def refuse(folder: Path) -> None:
    verdict = verify(folder)
    if not verdict.is_sound:
        raise CheckpointError("; ".join(verdict.faults))


def consolidate(folder: Path) -> None:
    run = folder.parents[1]
    code = main(["checkpoint", "consolidate", str(run), str(run / "out")])
    if code:
        raise CheckpointError(str(code))


WAYS: dict[str, Callable[[Path], object]] = {
    "Reader": read_all,
    "verify": refuse,
    "consolidate": consolidate,
    "choose": choose_and_read,
    "read_trained": lambda folder: read_trained(folder.parents[1]),
}


def test_all_ways_take_what_is_sound(run: Path) -> None:
    for way in WAYS.values():
        way(run / "checkpoints" / "step-000000001")


FILES = ("part-00000.safetensors", "part-00000.json", "COMMIT")


def test_what_is_smuggled_in_would_do_harm(tmp_path: Path) -> None:
    pickle.loads(harmful("pickle", tmp_path / "one"))
    assert (tmp_path / "one").exists()
    (tmp_path / "saved.pt").write_bytes(harmful("torch", tmp_path / "two"))
    torch.load(tmp_path / "saved.pt", weights_only=False)
    assert (tmp_path / "two").exists()


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("is_sealed", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("file", FILES)
def test_a_pickle_in_a_files_place_is_refused_and_not_run(
    file: str, is_sealed: bool, kind: str, run: Path
) -> None:
    folder = run / "checkpoints" / "step-000000001"
    marker = run / "harm"
    (folder / file).write_bytes(harmful(kind, marker))
    if is_sealed and file != "COMMIT":
        seal_again(folder)
    for name, way in WAYS.items():
        with pytest.raises(CheckpointError):
            way(folder)
        assert not marker.exists(), name


def test_a_checkpoint_cannot_point_outside_its_folder(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "step-000000001"
    outside = tmp_path / "outside.json"
    outside.write_bytes((folder / "part-00000.json").read_bytes())
    commit = json.loads((folder / "COMMIT").read_bytes())
    commit.pop("xxh3")
    commit["files"]["../../../outside.json"] = commit["files"]["part-00000.json"]
    (folder / "COMMIT").write_bytes(layout.seal(commit))
    with pytest.raises(CheckpointError, match="must name files beside it"):
        Reader(folder)
    commit["files"].pop("../../../outside.json")
    (folder / "COMMIT").write_bytes(layout.seal(commit))
    page = json.loads((folder / "part-00000.json").read_bytes())
    for place in page["tensors"].values():
        place["file"] = "../../../outside.json"
    (folder / "part-00000.json").write_text(json.dumps({**page, "file": "../../../outside.json"}))
    seal_again(folder)
    with pytest.raises(CheckpointError, match="must be named in COMMIT, but is not"):
        read_all(folder)

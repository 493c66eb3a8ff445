"""``ssl-scale checkpoint consolidate``: a run's pieces become one model, a file at a time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from ssl_scale.checkpoint import model_files
from ssl_scale.cli.checkpoint import parse_size
from ssl_scale.cli.main import main
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.system.build import build_system
from ssl_scale.system.system import System
from tests.checkpoint.writing import save_module
from tests.train.tiny import make_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, System]:
    """A run of two ranks, and the system whose values are in its checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    recipe = read_recipe(make_recipe(folder, norm="batch"))
    torch.manual_seed(0)
    system = build_system(recipe)
    with torch.no_grad():
        for parameter in system.teachers["ema"].parameters():
            parameter.mul_(2)
    save_module(folder / "run", {"": system}, 2, fingerprint=recipe.fingerprint())
    secret = recipe.to_yaml().replace("/pictures", "/pictures?token=sesame")
    (folder / "run" / "recipe.yaml").write_text(secret)
    return folder / "run", system


@pytest.fixture
def system(made: tuple[Path, System], tmp_path: Path) -> System:
    """The system; ``run`` is a run of its own."""
    run, system = made
    shutil.copytree(run, tmp_path / "run")
    return system


def consolidate(folder: Path, *arguments: object) -> int:
    return main(
        [
            "checkpoint",
            "consolidate",
            str(folder / "run"),
            str(folder / "out"),
            *map(str, arguments),
        ]
    )


def written(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted((folder / "out").glob("*.safetensors")):
        found |= load_file(path)
    return found


def expected(system: System) -> dict[str, torch.Tensor]:
    return {**dict(system.named_parameters()), **dict(system.named_buffers())}


def test_everything_is_written_whole_with_what_it_is(
    system: System, tmp_path: Path, capsys: Capture
) -> None:
    assert consolidate(tmp_path) == 0
    found = written(tmp_path)
    assert found.keys() == expected(system).keys()
    for name, value in expected(system).items():
        assert torch.equal(found[name], value), name
    text = (tmp_path / "out" / "config.json").read_text()
    config = json.loads(text)
    assert config["model_type"] == "ssl-scale" and config["dtype"] == "float32"
    assert config["step"] == 1 and config["recipe"]["encoders"]["image"]["width"] == 8
    assert config["fingerprint"] == read_recipe(tmp_path / "run").fingerprint()
    assert "sesame" not in text and "token=***" in text
    out = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'image'}: for AutoModel; read last_hidden_state" in out
    assert "text: no transformers equivalent: tokens of the encoder's own" in out
    model = AutoModel.from_pretrained(tmp_path / "out" / "image", add_pooling_layer=False)
    stem = system.encoders["image"].stem.projection
    assert torch.equal(model.embeddings.patch_embeddings.projection.bias, stem.bias)
    assert not (tmp_path / "out" / "text").exists()


def test_several_files_with_an_index_one_of_which_is_in_memory(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    save = model_files.save_file

    def watched(tensors: dict[str, torch.Tensor], *rest: object, **more: object) -> None:
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        save(tensors, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(model_files, "save_file", watched)
    assert consolidate(tmp_path, "--max-shard-size", "4KB") == 0
    assert len(sizes) > 3 and max(sizes) <= 4000
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected(system).keys()
    files = sorted(path.name for path in (tmp_path / "out").glob("model-*"))
    assert set(index["weight_map"].values()) == set(files)
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    for name, value in expected(system).items():
        assert torch.equal(written(tmp_path)[name], value), name
    total = sum(value.nbytes for value in expected(system).values())
    assert index["metadata"]["total_size"] == total


def test_a_teachers_copies_take_the_students_place(system: System, tmp_path: Path) -> None:
    assert consolidate(tmp_path, "--teacher", "ema", "--parts", "encoders") == 0
    found = written(tmp_path)
    assert all(name.startswith("encoders.") for name in found)
    name = "stem.projection.weight"
    taught = system.teachers["ema"].part("encoders.image").state_dict()[name]
    assert torch.equal(found[f"encoders.image.{name}"], taught)
    assert not torch.equal(taught, system.encoders["image"].state_dict()[name])
    text = system.encoders["text"].state_dict()["embedding.weight"]  # it is not taught
    assert torch.equal(found["encoders.text.embedding.weight"], text)
    kernel = "embeddings.patch_embeddings.projection.weight"
    in_folder = load_file(tmp_path / "out" / "image" / "model.safetensors")[kernel]
    assert torch.equal(in_folder.flatten(1), taught)


def test_numbers_become_coarser_if_told_and_whole_ones_stay(system: System, tmp_path: Path) -> None:
    assert consolidate(tmp_path, "--dtype", "bf16") == 0
    for name, value in expected(system).items():
        kept = value.bfloat16() if value.is_floating_point() else value
        assert torch.equal(written(tmp_path)[name], kept), name
        assert written(tmp_path)[name].dtype == kept.dtype


def test_parts_alone_are_written(system: System, tmp_path: Path) -> None:
    parts = "objectives.byol.projector,encoders.image.stem"
    assert consolidate(tmp_path, "--parts", parts) == 0
    found = written(tmp_path)
    assert {".".join(name.split(".")[:3]) for name in found} == set(parts.split(","))
    assert not (tmp_path / "out" / "image").exists()  # half an encoder is none


def test_what_is_asked_for_must_be_there(system: System, tmp_path: Path, capsys: Capture) -> None:
    for arguments, told in (
        (("--parts", "encoders.imag"), "one is 'encoders.imag'"),
        (("--teacher", "em"), "['ema'], but is 'em'"),
        (("--step", 7), "one of [1], but is 7"),
    ):
        assert consolidate(tmp_path, *arguments) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_only_a_consolidated_model_is_replaced_and_only_if_told(
    system: System, tmp_path: Path, capsys: Capture
) -> None:
    assert consolidate(tmp_path) == 0
    assert consolidate(tmp_path) == 2
    assert "pass --force to replace it" in capsys.readouterr().err
    assert consolidate(tmp_path, "--force", "--parts", "encoders") == 0
    assert all(name.startswith("encoders.") for name in written(tmp_path))
    (tmp_path / "out" / "config.json").write_text("{}")
    assert consolidate(tmp_path, "--force") == 2
    assert "holds something that is no assembled model" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*"))


def test_a_damaged_part_leaves_nothing_half_written(
    system: System, tmp_path: Path, capsys: Capture
) -> None:
    part = tmp_path / "run" / "checkpoints" / "step-000000001" / "part-00001.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert consolidate(tmp_path) == 2
    assert "part-00001.safetensors: the bytes on disk are not" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_nothing_that_a_recipe_names_is_imported(
    system: System, tmp_path: Path, capsys: Capture
) -> None:
    recipe = tmp_path / "run" / "recipe.yaml"
    told = recipe.read_text().replace("type: MaskedTokens", "type: their.own:Loss")
    recipe.write_text(told.replace("type: TextTransformer", "type: tests.hostile:Encoder"))
    assert consolidate(tmp_path) == 0
    out = capsys.readouterr().out
    assert "text: no transformers equivalent: tests.hostile:Encoder is of another package" in out
    assert f"{tmp_path / 'out' / 'image'}: for AutoModel" in out
    assert written(tmp_path).keys() == expected(system).keys()


@pytest.mark.slow  # the rule between rooms says the same of every import
def test_no_engine_is_needed(system: System, tmp_path: Path) -> None:
    recipe = tmp_path / "run" / "recipe.yaml"
    text = recipe.read_text() + "callbacks: {log: {type: FeatureRank, every: 2, encoder: image}}\n"
    recipe.write_text(text)
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    code = (
        "import sys; from ssl_scale.cli.main import main;"
        f"code = main(['checkpoint', 'consolidate', {run!r}, {out!r}]);"
        "print(code, [n for n in ('deepspeed', 'lightning') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr
    assert (tmp_path / "out" / "image" / "config.json").is_file()


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5kb", 1500), ("7", 7)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5 PB", "-1GB", "0"])
def test_what_is_no_size_is_refused(text: str, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        consolidate(tmp_path, f"--max-shard-size={text}")
    assert "must be a size like 500MB or 5GB" in capsys.readouterr().err

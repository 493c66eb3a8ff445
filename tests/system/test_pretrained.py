import json
import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_scale
from ssl_scale.cli.main import main
from ssl_scale.data.views.image import AugmentedImage, ImageView
from ssl_scale.errors import CheckpointError, SslScaleError
from ssl_scale.part import Spec
from ssl_scale.recipe.reading import read_recipe
from ssl_scale.report.features import look_at, open_held_out, pooled, projected, read_batches
from ssl_scale.system.build import build_fields, build_system
from ssl_scale.system.pretrained_folder import describe
from ssl_scale.train.export import export, export_trained, without_augmentation
from ssl_scale.train.trained import Trained, read_trained
from tests.plain_run import VOCAB_SIZE, plain_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return plain_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    return export(run_folder, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def seen(run_folder):
    """What the run's own system makes of its test data, and the raw samples."""
    trained = read_trained(run_folder)
    fields = build_fields(trained.recipe)
    source = open_held_out(
        trained.recipe.evaluation.test, {n: fields[n] for n in ("image", "caption")}, seed=0
    )
    clip = trained.system.objectives["clip"]

    def look(step):
        return {
            "image": pooled(step, "image", "image"),
            "text": pooled(step, "text", "caption"),
            "image place": projected(step, clip, "image"),
            "text place": projected(step, clip, "text"),
        }

    found = look_at(trained.system, read_batches(source), look)
    members = [source.fetch(ref) for ref in source.locate_all(np.arange(len(source)))]
    pictures = [member["image"][0] for member in members]
    captions = [member["caption"][0].decode() for member in members]
    return found, pictures, captions


def test_exported_features_equal_the_systems(exported, seen):
    found, pictures, captions = seen
    model = ssl_scale.load(exported)
    np.testing.assert_array_equal(model.encode(pictures).numpy(), found["image"])
    np.testing.assert_array_equal(model.encode(captions).numpy(), found["text"])


def test_projections_equal_the_systems(exported, seen):
    found, pictures, captions = seen
    model = ssl_scale.load(exported)
    for samples, name in ((pictures, "image"), (captions, "text")):
        places = found[f"{name} place"]
        expected = places / np.linalg.norm(places, axis=1, keepdims=True)
        np.testing.assert_allclose(model.project(samples).numpy(), expected, atol=1e-6)


def test_sigmoid_contrast_has_projections_too(run_folder, seen, tmp_path):
    changed = (
        "objectives.clip={type: SigmoidContrast, between: [image, text], views: [image, caption], "
        "projector: {type: LinearProjector, out: 16}}"
    )
    recipe = read_recipe(run_folder, [changed])
    torch.manual_seed(0)
    system = build_system(recipe).eval()
    export_trained(Trained(recipe, system, 0), tmp_path / "model")
    _, pictures, _ = seen
    model = ssl_scale.load(tmp_path / "model")
    places = system.objectives["clip"].projectors["image"](model.encode(pictures))
    expected = torch.nn.functional.normalize(places, dim=-1)
    torch.testing.assert_close(model.project(pictures), expected)


def test_pictures_may_be_files_bytes_images_or_arrays(exported, seen, tmp_path):
    _, pictures, _ = seen
    model = ssl_scale.load(str(exported))
    paths = [tmp_path / f"{place}.png" for place in range(3)]
    for path, content in zip(paths, pictures, strict=False):
        path.write_bytes(content)
    images = [Image.open(path) for path in paths]
    array = np.stack([np.asarray(image) for image in images])[:, None]
    expected = model.encode(pictures[:3])
    for samples in (paths, images, array, torch.from_numpy(array)):
        torch.testing.assert_close(model.encode(samples), expected)
    torch.testing.assert_close(model.encode([str(p) for p in paths], "image"), expected)


def test_the_batch_size_changes_nothing_and_tokens_are_padded(exported, seen):
    _, _, captions = seen
    model = ssl_scale.load(exported)
    some = sorted(captions[:9], key=len)
    torch.testing.assert_close(model.encode(some, batch_size=2), model.encode(some))
    tokens, valid = model.tokens(some, batch_size=2)
    whole, all_valid = model.tokens(some)
    assert torch.equal(valid, all_valid)
    torch.testing.assert_close(tokens[valid], whole[valid])
    means = torch.stack([row[there].mean(0) for row, there in zip(tokens, valid, strict=True)])
    torch.testing.assert_close(means, model.encode(some))  # the encoder pools by the mean


def test_a_loaded_model_is_frozen_until_asked(exported, seen):
    model = ssl_scale.load(exported)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.requires_grad_(True)
    model.encoders["image"](model.view(seen[1][:4])).pooled.sum().backward()
    gradients = [parameter.grad for parameter in model.encoders["image"].parameters()]
    assert all(gradient is not None for gradient in gradients)


def test_the_folder_needs_nothing_from_outside(exported, run_folder):
    text = "".join(path.read_text(errors="replace") for path in exported.iterdir())
    assert str(run_folder.parents[1]) not in text
    config = json.loads((exported / "config.json").read_text())
    assert config["encoders"]["text"]["given"] == {"vocab_size": VOCAB_SIZE, "mask_token": 4}
    assert config["encoders"]["image"]["encoder"]["norm_eps"] == 1e-6  # a default, spelled out
    readable = {path.stat().st_mode & 0o444 for path in exported.iterdir()}
    assert len(readable) == 1


def test_an_export_is_not_replaced_unless_forced(exported, run_folder, tmp_path, capsys):
    target = tmp_path / "model"
    assert main(["export", str(run_folder), str(target)]) == 0
    before = (target / "encoder.image.safetensors").read_bytes()
    assert main(["export", str(run_folder), str(target), "--teacher", "ema"]) == 2
    assert "holds an export; name another, or pass --force" in capsys.readouterr().err
    assert (target / "encoder.image.safetensors").read_bytes() == before
    assert main(["export", str(run_folder), str(target), "--teacher", "ema", "--force"]) == 0
    assert (target / "encoder.image.safetensors").read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["model"]  # no drafts are left


def test_a_folder_that_is_no_export_is_never_replaced(run_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SslScaleError, match="holds something that is no export"):
        export(run_folder, tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_missing_step_and_a_missing_teacher_are_told(run_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"step must be .* one of \[60\], but is 7"):
        export(run_folder, tmp_path / "a", step=7)
    with pytest.raises(CheckpointError, match=r"one of the run's, \['ema'\], but is 'mean'"):
        export(run_folder, tmp_path / "a", teacher="mean")
    with pytest.raises(CheckpointError, match="checkpoint of this recipe, but .* leave out"):
        read_trained(run_folder, overrides=["encoders.image.width=64"])


def _copy(exported, folder, change):
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def test_a_hostile_config_runs_nothing(exported, tmp_path):
    def change(config):
        config["encoders"]["image"]["view"] = {"type": "antigravity:Part", "field": "image"}

    folder = _copy(exported, tmp_path / "model", change)
    with pytest.raises(SslScaleError, match="would run code of another package"):
        ssl_scale.load(folder)
    assert "antigravity" not in sys.modules


def test_a_hostile_config_reads_no_file_outside(exported, tmp_path):
    def rename(config):
        config["encoders"]["../../image"] = config["encoders"].pop("image")

    with pytest.raises(SslScaleError, match="names of letters, digits, - and _"):
        ssl_scale.load(_copy(exported, tmp_path / "one", rename))

    def redirect(config):
        config["encoders"]["text"]["field"]["tokenizer"] = "/etc/passwd"

    folder = _copy(exported, tmp_path / "two", redirect)
    assert ssl_scale.load(folder).fields["text"].path == folder.absolute() / "tokenizer.json"


def test_faults_of_a_config_are_told_with_their_line(exported, tmp_path):
    def change(config):
        config["encoders"]["image"]["encoder"]["widht"] = 5

    folder = _copy(exported, tmp_path / "model", change)
    with pytest.raises(SslScaleError, match=r"config.json:\d+: .*did you mean 'width'"):
        ssl_scale.load(folder)


def test_damage_is_told(exported, tmp_path):
    with pytest.raises(SslScaleError, match="must be a folder that ssl-scale export wrote"):
        ssl_scale.load(tmp_path)
    folder = _copy(exported, tmp_path / "old", lambda config: config.update(version=99))
    with pytest.raises(SslScaleError, match="version 1, but says .* version 99"):
        ssl_scale.load(folder)
    cut = _copy(exported, tmp_path / "cut", lambda config: None)
    weights = cut / "encoder.image.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SslScaleError, match="encoder.image.safetensors must hold the weights"):
        ssl_scale.load(cut)
    weights.unlink()
    with pytest.raises(SslScaleError, match="there is no such file"):
        ssl_scale.load(cut)


def test_wrong_samples_are_told(exported):
    model = ssl_scale.load(exported)
    with pytest.raises(ValueError, match="at least one"):
        model.encode([], "image")
    with pytest.raises(ValueError, match=re.escape("encoder must be one of ['image', 'text']")):
        model.encode(["a"], "audio")
    with pytest.raises(ValueError, match="but are torch.float32"):
        model.encode(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="objective must be one of \\['clip'\\]"):
        model.project(["a"], objective="simclr")


def test_an_augmented_view_is_exported_as_the_plain_one():
    spec = Spec(AugmentedImage, {"field": "image", "size_px": 32, "flip": 0.0, "mean": (0.4,)})
    plain = without_augmentation(spec)
    assert plain.part is ImageView
    assert plain.arguments == {"field": "image", "size_px": 32, "mean": (0.4,)}
    assert describe(plain)["std"] == [0.5]

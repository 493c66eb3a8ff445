import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_scale.cli.main import build_parser, main, subcommands
from ssl_scale.data.index import describe_shard, write_dataset
from ssl_scale.data.index_block import encode_block
from ssl_scale.data.member_checks import add_checks
from tests.data.shards import index_shard
from tests.recipe.writing import SOUND, write

COMMAND = [sys.executable, "-m", "ssl_scale.cli.main"]


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_SCALE_DATA", str(tmp_path / "none.yaml"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A data set of five labelled pictures."""
    folder = tmp_path / "digits"
    folder.mkdir()
    shard = folder / "shard-000000.tar"
    with tarfile.open(shard, "w") as archive:
        for number in range(5):
            picture = io.BytesIO()
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(picture, "png")
            for name, data in (("png", picture.getvalue()), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:04}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    index = add_checks(shard, index_shard(shard))
    shards, blocks = [describe_shard(shard, index)], [encode_block(index)]
    write_dataset(folder, "digits", shards, blocks, index.counts())
    return folder


def test_the_command_line_is_read_without_heavy_imports() -> None:
    heavy = ("torch", "lightning", "pydantic", "numpy", "yaml", "deepspeed", "transformers")
    code = (
        "import sys; from ssl_scale.cli.main import build_parser; build_parser();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [None, *subcommands()])
def test_every_help_has_examples_and_succeeds(
    name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*([name] if name else []), "--help"])
    assert left.value.code == 0
    assert f"  ssl-scale {name or ''}" in capsys.readouterr().out.partition("examples:")[2]


def test_the_promised_subcommands_are_there() -> None:
    assert {"check", "show", "fit", "evaluate", "export", "report"} <= set(subcommands())


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["fit"], ["check", "a", "b"], ["fit", "a", "--max-steps", "x"]]
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args(arguments)
    assert left.value.code == 2


def test_check_says_what_a_sound_recipe_amounts_to(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SOUND.replace("steps: 10", "epochs: 24"))
    assert main(["check", str(path), "--data", f"digits={digits}"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("mine is sound") and err == ""
    assert "10 steps of 12 samples: 120 samples" in out
    assert "sources: digits (5)" in out


def test_check_looks_at_all_shards_where_opening_looks_at_the_first(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssl_scale.data.index._LOOKED_AT", 0)
    (digits / "shard-000000.tar").write_bytes(b"cut")
    assert main(["check", str(write(tmp_path, SOUND)), "--data", f"digits={digits}"]) == 2
    assert "shard-000000.tar: must be" in capsys.readouterr().err


def test_check_builds_the_parts_on_request(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = "weight: {type: WarmupStableDecay, peak: 1, warmup: 0.8, decay: 0.8}"
    path = write(tmp_path, SOUND.replace("encoder: image}", f"encoder: image, {weight}}}"))
    command = ["check", str(path), "--data", f"digits={digits}"]
    assert main(command) == 0
    assert main([*command, "--build"]) == 2
    assert "warmup + decay must be at most 1, but is 1.6" in capsys.readouterr().err
    sound = write(tmp_path, SOUND, "sound.yaml")
    assert main(["check", str(sound), "--data", f"digits={digits}", "--build"]) == 0


def test_check_shows_how_the_parameters_will_move(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = "VisionTransformer, width: 8, depth: 1, num_heads: 2, patch: 4, size_px: 8}"
    path = write(tmp_path, SOUND.replace('"tests.recipe.parts:TinyEncoder"}', vit))
    command = ["check", str(path), "--data", f"digits={digits}", "--build", "--set"]
    group = "match: encoders.image.stem.*, freeze_until: 0.5"
    assert main([*command, f"optim.groups=[{{{group}}}]"]) == 0
    assert "no decay, frozen until 0.5" in capsys.readouterr().out
    assert main([*command, "optim.groups=[{match: encoders.image.stam.*, lr_scale: 0}]"]) == 2
    assert "encoders.image.stem.projection.bias" in capsys.readouterr().err
    assert main([*command, "optim.groups=[{match: stem, freze_until: 0.5}]"]) == 2
    assert "optim.groups[0].freze_until: this section takes no" in capsys.readouterr().err
    assert main([*command, "optim.groups=[{match: stem, freeze_until: 2.5}]"]) == 2
    assert "whole number of steps, but is 2.5" in capsys.readouterr().err
    assert main([*command, "optim.layer_decay=1.5"]) == 2
    assert "must be less than or equal to 1, but is 1.5" in capsys.readouterr().err


def test_a_wrong_recipe_exits_with_2_and_names_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SOUND.replace("size_px: 8", "size_px: -8").replace("0.1", "fast"))
    assert main(["check", str(path), "--set", "train.zero=9"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"error: recipe {path} has 3 faults"
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines[1:]] == [
        "--set train.zero",
        "mine.yaml:4",
        "mine.yaml:14",
    ]


def test_unbound_data_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write(tmp_path, SOUND))]) == 3
    err = capsys.readouterr().err
    assert err.startswith("error: recipe") and "Traceback" not in err
    assert "bind it with --data digits=PATH" in err


def test_a_data_set_that_is_not_there_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SOUND)
    assert main(["check", str(path), "--data", f"digits={tmp_path}/nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: data.sources.digits: {tmp_path}/nowhere: a data set must be")
    assert "Traceback" not in err


def test_a_field_that_no_sample_has_exits_with_2(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SOUND.replace("extension: png", "extension: jpg"))
    assert main(["check", str(path), "--data", f"digits={digits}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: data.sources.digits: ") and "jpg" in err
    assert "Traceback" not in err


def test_check_as_json(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, SOUND)
    assert main(["check", str(path), "--json", "--data", f"digits={digits}"]) == 0
    finding = json.loads(capsys.readouterr().out)
    assert (finding["ok"], finding["steps"], finding["sources"]) == (True, 10, {"digits": 5})

    assert main(["check", str(path), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["unbound"] is True

    assert main(["check", str(path), "--json", "--set", "train.zero=9"]) == 2
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["file"], fault["line"], fault["path"]) == ("--set train.zero", None, "train.zero")


def test_show_prints_a_recipe_that_reads_as_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SOUND)
    assert main(["show", str(path), "--seed", "5", "--set", "optim.lr=1e-3"]) == 0
    shown = capsys.readouterr().out
    assert main(["show", str(write(tmp_path, shown, "again.yaml"))]) == 0
    assert capsys.readouterr().out == shown
    assert "seed: 5" in shown and "lr: 0.001" in shown


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "no/such/recipe"],
        ["fit", "{sound}"],
        ["fit", "{sound}", "--data", "digits=/d", "--max-steps", "0"],
        ["fit", "{sound}", "--data", "digits=/d", "--name", "../up"],
        ["fit", "{sound}", "--data", "digits"],
        ["evaluate", "{folder}", "--seeds", "0"],
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"sound": str(write(tmp_path, SOUND)), "folder": str(tmp_path)}
    assert main([word.format(**places) for word in arguments]) in (2, 3)
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path, SOUND)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "show", str(path)], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_ends_without_a_traceback(tmp_path: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nclass Thing: ...\n"
    (tmp_path / "interrupting.py").write_text(code)
    path = write(tmp_path, SOUND.replace("tests.recipe.parts:Everything", "interrupting:Thing"))
    done = subprocess.run(
        [*COMMAND, "show", str(path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")

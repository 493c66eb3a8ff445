"""``ssl-scale checkpoint ls`` and ``verify`` tell what is there and whether it is whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_scale.checkpoint.reader import Reader
from ssl_scale.cli.main import main
from ssl_scale.errors import CheckpointError
from tests.checkpoint.writing import contents, flip, save, seal_again, weights_after

Capture = pytest.CaptureFixture[str]


def test_ls_shows_every_checkpoint_newest_first(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 4, 6, 8, world_size=2)
    os.utime(checkpoints / "step-000000004" / "COMMIT", (0, 0))
    (checkpoints / "step-000000009.tmp-1").mkdir()
    (checkpoints / "step-000000006" / "COMMIT").unlink()
    assert main(["checkpoint", "ls", str(tmp_path)]) == 0
    head, newest, broken, best, *rest = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "step saved age size processes zero precision marks"
    assert newest.split()[0] == "8" and newest.endswith("2          3     fp32       newest")
    assert broken.split()[0] == "6" and broken.endswith("not whole, see below")
    assert best.split()[:2] == ["4", "1970-01-01"] and best.endswith("best")
    assert "step-000000006: not a checkpoint ([Errno 2] No such file" in rest[2]
    assert rest[-1] == "  step-000000009.tmp-1  0 B"


def test_ls_gives_other_programs_the_same(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 4, 6, zero=2, best={"step": None})
    assert main(["checkpoint", "ls", str(checkpoints), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["step"] for entry in found["checkpoints"]] == [6, 4]
    assert found["checkpoints"][0]["marks"] == ["newest", "for good"]
    assert found["checkpoints"][1]["marks"] == [] and found["checkpoints"][1]["zero"] == 2
    size = sum(path.stat().st_size for path in (checkpoints / "step-000000006").iterdir())
    assert found["checkpoints"][0]["bytes"] == size


@pytest.mark.parametrize("action", ["ls", "verify"])
def test_what_is_no_run_is_named(action: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["checkpoint", action, str(tmp_path / "none")]) == 2
    assert f"{tmp_path / 'none'} must be the folder of a run, but there is no" in (
        capsys.readouterr().err
    )
    assert main(["checkpoint", action, str(tmp_path)]) == 2
    assert "has neither checkpoints/ nor step-*" in capsys.readouterr().err


def test_verify_reads_the_newest_a_step_or_all(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 4, 8, world_size=2)
    command = ["checkpoint", "verify", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("step-000000008: sound: 4 files, ") and "B/s)" in out
    assert out.endswith("5 tensors, without gap or overlap\n") and out.count("\n") == 1
    flip(checkpoints / "step-000000004" / "part-00001.safetensors")
    flip(checkpoints / "step-000000004" / "part-00000.json")
    assert main([*command, "--step", "8"]) == 0
    capsys.readouterr()
    assert main([*command, "--all"]) == 2
    sound, head, *faults = capsys.readouterr().out.splitlines()
    assert sound.startswith("step-000000008: sound") and head == "step-000000004: damaged"
    assert ["part-00001.safetensors" in fault for fault in faults] == [False, True]
    assert all("the bytes on disk are not those that were written" in fault for fault in faults)
    assert main(["checkpoint", "verify", str(checkpoints / "step-000000004")]) == 2
    assert main([*command, "--step", "5"]) == 2
    assert "step must be that of a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("start", "what"), [(16, "16..17 are there twice"), (18, "17..18 are mi")])
def test_pieces_that_do_not_meet_are_found(
    start: int, what: str, tmp_path: Path, capsys: Capture
) -> None:
    folder = save(tmp_path, 4, world_size=2) / "step-000000004"
    page = folder / "part-00001.json"
    told = json.loads(page.read_text())
    told["tensors"]["master/encoders.image.w"]["start"] = start
    page.write_text(json.dumps(told))
    seal_again(folder)
    assert main(["checkpoint", "verify", str(folder)]) == 2
    assert f"'master/encoders.image.w' must be there once, but {what}" in capsys.readouterr().out


def test_an_end_that_is_missing_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 4, world_size=2) / "step-000000004"
    page = folder / "part-00001.json"
    told = json.loads(page.read_text())
    del told["tensors"]["master/encoders.image.w"]
    page.write_text(json.dumps(told))
    seal_again(folder)
    with pytest.raises(CheckpointError, match=r"but 17\.\.35 are missing"):
        Reader(folder).check_tiles()


def test_a_checkpoint_moved_to_a_machine_without_engines_can_be_looked_after(
    tmp_path: Path,
) -> None:
    save(tmp_path / "run", 4, 8, world_size=2)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    lines = [
        ["ls", run],
        ["verify", run, "--all"],
        ["diff", run, other],
        ["prune", other, "--keep-last", "1"],
    ]
    code = (
        "import sys; from ssl_scale.cli.main import main;"
        f"codes = [main(['checkpoint', *line]) for line in {lines}];"
        "print(codes, [n for n in ('deepspeed', 'lightning') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0] []", done.stdout


def test_help_and_ls_do_without_torch(tmp_path: Path) -> None:
    save(tmp_path, 4)
    code = (
        "import sys; from ssl_scale.cli.main import main, build_parser; build_parser();"
        f"main(['checkpoint', 'ls', {str(tmp_path)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("action", ["ls", "verify", "diff", "prune", "consolidate"])
def test_every_action_teaches_by_examples(action: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["checkpoint", action, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert f"  ssl-scale checkpoint {action} runs/" in out.partition("examples:")[2]


def test_the_writer_of_these_tests_writes_what_it_says(tmp_path: Path) -> None:
    reader = Reader(save(tmp_path, 4, world_size=2) / "step-000000004")
    assert torch.equal(reader.read_whole("master/encoders.image.w"), weights_after(4))
    assert contents(4).pieces.keys() == set(reader.keys)

"""``ssl-scale checkpoint prune`` never takes what a run goes on from, or what it was for."""

from pathlib import Path

import pytest

from ssl_scale.checkpoint import layout
from ssl_scale.cli.main import main
from ssl_scale.train.lease.holder import Holder
from ssl_scale.train.lease.lease import Lease
from ssl_scale.train.lease.taking import take
from tests.checkpoint.writing import flip, save

Capture = pytest.CaptureFixture[str]


def prune(path: Path, *arguments: object) -> int:
    return main(["checkpoint", "prune", str(path), *map(str, arguments)])


def steps_of(checkpoints: Path) -> list[int]:
    return sorted(layout.step_of(folder) or 0 for folder in layout.candidates(checkpoints))


def test_the_newest_the_best_and_every_so_many_stay(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 2, 3, 4, 5, 6, 7, 8)
    assert prune(tmp_path, "--keep-last", 2, "--keep-every", 3, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "step-000000004" in told and "stays: the best so far" in told
    assert "2 of 7 folders" in told and "would go" in told
    assert steps_of(checkpoints) == [2, 3, 4, 5, 6, 7, 8]
    assert prune(tmp_path, "--keep-last", 2, "--keep-every", 3) == 0
    assert steps_of(checkpoints) == [3, 4, 6, 7, 8]
    assert layout.leftovers(checkpoints) == []
    done = capsys.readouterr().out
    assert done.splitlines()[:-1] == told.splitlines()[:-1]  # what was announced was done


def test_the_newest_that_verifies_stays_behind_a_damaged_one(
    tmp_path: Path, capsys: Capture
) -> None:
    checkpoints = save(tmp_path, 5, 6, 7, 8, best={})
    flip(checkpoints / "step-000000008" / "part-00000.safetensors")  # as long as it was
    assert prune(tmp_path, "--keep-last", 1) == 0
    assert steps_of(checkpoints) == [7, 8]
    out = capsys.readouterr().out
    assert "stays: its bytes are damaged" in out and "stays: the newest whose bytes verify" in out


def test_what_is_not_whole_stays_and_is_not_counted(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 5, 6, 7, best={})
    (checkpoints / "step-000000007" / "COMMIT").unlink()
    assert prune(tmp_path, "--keep-last", 1) == 0
    assert steps_of(checkpoints) == [6, 7]
    assert "stays: it is not whole" in capsys.readouterr().out


def test_leftovers_go_if_told(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 5)
    names = [".trash-step-000000001", "step-000000003.tmp-1"]
    for name in names:
        (checkpoints / name).mkdir()
        (checkpoints / name / "part-00000.json").write_text("{}")
    assert prune(tmp_path, "--keep-last", 1) == 0
    assert [path.name for path in layout.leftovers(checkpoints)] == names
    assert "--leftovers deletes it" in capsys.readouterr().out
    assert prune(tmp_path, "--keep-last", 1, "--leftovers") == 0
    assert [path.name for path in checkpoints.iterdir()] == ["step-000000005"]


def test_a_kill_while_deleting_leaves_no_half_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = save(tmp_path, 5, 6, best={})

    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", die)
    assert prune(tmp_path, "--keep-last", 1) == 130
    assert steps_of(checkpoints) == [6] and len(layout.leftovers(checkpoints)) == 1


def test_nothing_is_deleted_while_the_run_trains(tmp_path: Path, capsys: Capture) -> None:
    checkpoints = save(tmp_path, 5, 6, best={})
    path, holder = tmp_path / "RUNNING", Holder.here(0.1)
    take(path, holder, 40, print)
    lease = Lease(path, holder)
    try:
        assert prune(tmp_path, "--keep-last", 1) == 2
        assert "wait until that run has ended" in capsys.readouterr().err
        assert steps_of(checkpoints) == [5, 6]
        assert prune(tmp_path, "--keep-last", 1, "--dry-run") == 0
    finally:
        lease.release()
    assert prune(tmp_path, "--keep-last", 1) == 0
    assert steps_of(checkpoints) == [6] and not path.exists()


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_none_cannot_be_kept(count: str, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        prune(tmp_path, "--keep-last", count)
    assert left.value.code == 2
    assert f"must be a whole number of at least 1, but is '{count}'" in capsys.readouterr().err

import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ssl_scale.errors import SslScaleError
from ssl_scale.redact import redact
from ssl_scale.train.environment import (
    compare_environments,
    describe_environment,
    next_attempt,
    read_environments,
    record_environment,
)
from ssl_scale.train.records import Records, read_metrics, read_resumes
from ssl_scale.train.wandb_view import keep_id


@pytest.fixture
def records_of():
    """Opens records that are closed when the test is over."""
    opened = []

    def make(*arguments):
        opened.append(Records(*arguments))
        return opened[-1]

    yield make
    for records in opened:
        records.close()


def _steps(folder):
    return [(line["attempt"], line["step"]) for line in read_metrics(folder / "metrics.jsonl")]


def test_each_line_bears_step_attempt_time_and_kind(records_of, tmp_path):
    records = records_of(tmp_path, 1)
    records.write("train", 10, {"loss/simclr": 1.5, "source": "bare"})
    (line,) = read_metrics(records.path)
    assert line.pop("time") > 1.7e9
    assert line == {
        "kind": "train",
        "step": 10,
        "attempt": 1,
        "loss/simclr": 1.5,
        "source": "bare",
    }


def test_a_line_is_on_disk_before_the_run_goes_on(records_of, tmp_path):
    records = records_of(tmp_path, 1)
    records.write("train", 1, {"loss": 1.0})
    assert len(read_metrics(records.path)) == 1  # not closed, not flushed by us


def test_lines_beyond_a_resume_are_void_and_stay_in_the_file(records_of, tmp_path):
    first = records_of(tmp_path, 1)
    for step in (10, 20, 30, 40):
        first.write("train", step, {"loss": 1.0})
    first.close()
    before = first.path.read_bytes()
    second = records_of(tmp_path, 2)
    second.resume(after_step=20)
    second.write("train", 30, {"loss": 0.5})
    assert first.path.read_bytes().startswith(before)
    assert _steps(tmp_path) == [(1, 10), (1, 20), (2, 30)]
    assert read_resumes(second.path) == [(2, 20)]


def test_a_resume_further_back_voids_two_attempts(records_of, tmp_path):
    for attempt, after, steps in ((1, None, (10, 20, 30)), (2, 20, (30, 40)), (3, 10, (20, 30))):
        records = records_of(tmp_path, attempt)
        if after is not None:
            records.resume(after)
        for step in steps:
            records.write("train", step, {})
    assert _steps(tmp_path) == [(1, 10), (3, 20), (3, 30)]


def test_a_line_written_late_by_a_dying_attempt_is_void(records_of, tmp_path):
    first, second = records_of(tmp_path, 1), records_of(tmp_path, 2)
    first.write("train", 10, {})
    second.resume(10)
    first.write("train", 20, {})
    second.write("train", 11, {})
    assert _steps(tmp_path) == [(1, 10), (2, 11)]


def test_a_run_that_goes_back_voids_its_own_lines_so_far(records_of, tmp_path):
    records = records_of(tmp_path, 1)
    for step in (10, 20, 30):
        records.write("train", step, {})
    records.go_back(10)
    for step in (20, 30):
        records.write("train", step, {"loss": 0.5})
    assert _steps(tmp_path) == [(1, 10), (1, 20), (1, 30)]
    assert [line.get("loss") for line in read_metrics(records.path)] == [None, 0.5, 0.5]
    assert read_resumes(records.path) == []


def test_a_run_that_starts_over_voids_everything(records_of, tmp_path):
    records_of(tmp_path, 1).write("validation", 0, {"loss": 2.0})
    second = records_of(tmp_path, 2)
    second.resume(-1)
    second.write("validation", 0, {"loss": 2.0})
    assert _steps(tmp_path) == [(2, 0)]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_passed_over_and_spoils_no_later_line(records_of, tmp_path, cut):
    first = records_of(tmp_path, 1)
    first.write("train", 10, {"loss": 1.0})
    first.write("train", 20, {"loss": 1.0})
    first.close()
    first.path.write_bytes(first.path.read_bytes()[:-cut])
    assert (1, 10) in _steps(tmp_path)
    second = records_of(tmp_path, 2)
    second.write("train", 30, {"loss": 1.0})
    assert (2, 30) in _steps(tmp_path)
    assert (1, 10) in _steps(tmp_path)


def test_a_killed_writer_leaves_only_whole_lines_readable(tmp_path):
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(f"""
                from pathlib import Path
                from ssl_scale.train.records import Records
                records = Records(Path({str(tmp_path)!r}), 1)
                step = 0
                while True:
                    step += 1
                    records.write("train", step, {{"loss": 1.0, "text": "x" * 3000}})
                    if step == 50:
                        print("go", flush=True)
            """),
        ],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    steps = [step for _, step in _steps(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 50


def test_figures_that_are_not_finite_stay_valid_json_and_read_as_nan(records_of, tmp_path):
    records = records_of(tmp_path, 1)
    records.write("train", 1, {"loss": math.nan, "grad_norm": math.inf, "count": 3})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    raw = json.loads(records.path.read_text(), parse_constant=refuse)
    assert raw["loss"] is None
    (line,) = read_metrics(records.path)
    assert math.isnan(line["loss"]) and math.isnan(line["grad_norm"]) and line["count"] == 3


def test_figures_must_not_take_the_lines_own_names(records_of, tmp_path):
    with pytest.raises(ValueError, match="must differ from .* but are \\['step'\\]"):
        records_of(tmp_path, 1).write("train", 1, {"step": 2.0})


def test_a_disk_that_refuses_writes_does_not_stop_the_run(records_of, tmp_path, caplog):
    records = records_of(tmp_path, 1)
    (tmp_path / "metrics.jsonl").mkdir()
    with caplog.at_level(logging.WARNING):
        records.write("train", 1, {"loss": 1.0})
        records.write("train", 2, {"loss": 1.0})
    assert sum("can't be written" in message for message in caplog.messages) == 1
    (tmp_path / "metrics.jsonl").rmdir()
    records.write("train", 3, {"loss": 1.0})
    assert _steps(tmp_path) == [(1, 3)]


def test_a_view_that_fails_is_switched_off_and_the_run_goes_on(records_of, tmp_path, caplog):
    class Broken:
        calls = 0

        def write(self, line):
            self.calls += 1
            raise RuntimeError("no network")

        def close(self):
            raise AssertionError("a view that is off is not closed")

    view = Broken()
    records = records_of(tmp_path, 1, [view])
    records.write("train", 1, {})
    records.write("train", 2, {})
    records.close()
    assert view.calls == 1
    assert "no network" in caplog.text
    assert len(_steps(tmp_path)) == 2


def test_environments_grow_by_one_entry_an_attempt(tmp_path):
    assert next_attempt(tmp_path) == 1
    assert record_environment(tmp_path, 1) == []
    assert next_attempt(tmp_path) == 2
    assert record_environment(tmp_path, 2) == []  # nothing changed, nothing to warn about
    entries = read_environments(tmp_path)
    assert [entry["attempt"] for entry in entries] == [1, 2]
    assert entries[0]["packages"]["torch"].startswith("2.")


def test_attempts_count_on_from_the_metrics_if_the_environment_file_is_lost(records_of, tmp_path):
    records_of(tmp_path, 3).write("train", 1, {})
    assert next_attempt(tmp_path) == 4


def test_a_resume_in_another_environment_is_warned_about():
    before = describe_environment(1)
    now = json.loads(json.dumps(before))
    now["packages"]["torch"] = "9.9"
    now["gpus"] = ["NVIDIA H100"]
    now["host"] = "another"
    warnings = compare_environments(before, now)
    assert len(warnings) == 2
    assert any("torch 9.9, but the one before had torch 2." in text for text in warnings)
    assert any("NVIDIA H100" in text and "no gpus" in text for text in warnings)


def test_a_damaged_environment_file_says_what_to_do(tmp_path):
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(SslScaleError, match="environment.json must hold .* move it away"):
        read_environments(tmp_path)


def test_only_listed_variables_are_written_down(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JWT", "ey-secret")
    monkeypatch.setenv("WANDB_API_KEY", "w-secret")
    text = json.dumps(describe_environment(1))
    assert '"SLURM_JOB_ID": "17"' in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("api_key", "abc", "***"),
        ("hf_token", "abc", "***"),
        ("password", "abc", "***"),
        ("max_tokens", 24, 24),
        ("tokenizer", "tokenizer", "tokenizer"),
        ("mask_token", "[MASK]", "[MASK]"),
        ("author", "Ada", "Ada"),
        ("data", "s3://user:pw@host/bucket", "s3://***@host/bucket"),
        (
            "data",
            "https://h/x?a=1&X-Amz-Signature=99&b=2",
            "https://h/x?a=1&X-Amz-Signature=***&b=2",
        ),
        ("note", "uses hf_abcdefghijklmnopqrstuv here", "uses *** here"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(key, value, expected):
    assert redact({"nested": [{key: value}]}) == {"nested": [{key: expected}]}


def test_the_wandb_id_is_kept_before_wandb_is_asked(tmp_path):
    assert keep_id(tmp_path) == keep_id(tmp_path)
    assert (tmp_path / "wandb_id").read_text().strip() == keep_id(tmp_path)


_ATTEMPT = """
import sys
from pathlib import Path
from ssl_scale.train.records import Records
from ssl_scale.train.wandb_view import WandbView
folder, attempt = Path(sys.argv[1]), int(sys.argv[2])
view = WandbView(folder, "demo", {"lr": 0.1, "api_key": "do-not-show"})
records = Records(folder, attempt, [view])
start = 10 * (attempt - 1)
if attempt > 1:
    records.resume(start)
for step in range(start + 1, start + 16):
    records.write("train", step, {"loss": 1.0 / step})
records.write("validation", start + 10, {"loss": 0.5})
print(view.id, flush=True)
records.close()
"""


def test_three_offline_attempts_are_one_wandb_run(tmp_path):
    ids = []
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    for attempt in (1, 2, 3):
        done = subprocess.run(
            [sys.executable, "-c", _ATTEMPT, str(tmp_path), str(attempt)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        ids.append(done.stdout.split()[-1])
    assert len(set(ids)) == 1
    segments = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(segments) == 3
    assert all(folder.name.endswith(ids[0]) for folder in segments)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert b"do-not-show" not in written
    assert written.count(b"validation/loss") >= 3
    assert _steps(tmp_path)[-1] == (3, 30)


def test_wandb_is_not_imported_unless_it_is_used():
    code = "import ssl_scale.train.wandb_view, sys; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

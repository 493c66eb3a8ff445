"""``ssl-scale plan``, as it is called."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_scale.cli.main import main
from ssl_scale.recipe.finding import list_recipes
from tests.plan.test_flops import PICTURES
from tests.recipe.writing import write

# A command, which engines it imported, and the peak of its resident memory: Linux counts KiB.
COMMAND = """
import resource, sys
from ssl_scale.cli.main import main
code = main(sys.argv[1:])
print({"deepspeed", "lightning"} & sys.modules.keys(), file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""
SEVEN_BILLION = [
    *("--set", "encoders.image={type: VisionTransformer, width: 4096, depth: 32, num_heads: 32}"),
    *("--set", "train.zero=3"),
]


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_SCALE_DATA", str(tmp_path / "none.yaml"))


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    return str(write(tmp_path, PICTURES))


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["plan", "--json", *arguments]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_seven_billion_parameters_are_planned_in_little_memory_without_an_engine() -> None:
    command = [sys.executable, "-c", COMMAND, "plan", "vision/mae", "--gpus", "8", *SEVEN_BILLION]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)
    assert sum(part["trained"] for part in plan["parts"]) > 6.4e9
    *_, engines, peak_mib = done.stderr.split()
    assert engines == "set()"
    assert int(peak_mib) < 2048, "of which torch takes a third"


def test_the_table_has_parts_stages_time_and_a_verdict(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", pictures, "--gpus", "2", "--vocab-size", "100"]) == 0
    table = capsys.readouterr().out
    assert "encoders.image" in table and "objectives.mlm" in table
    assert "ZeRO-0  ZeRO-1  *ZeRO-2  ZeRO-3" in table
    assert "fits into GPUs of 74.506 GiB" in table
    assert "the run: 10 steps" in table and "GPU-hours" in table


def test_hours_follow_from_operations_peak_and_mfu(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = ("--peak-tflops", "100", "--mfu", "0.5", "--nodes", "2", "--gpus", "4")
    plan = planned(capsys, pictures, "--vocab-size", "100", *speed)
    step = plan["step"]["forward"] + plan["step"]["backward"]  # type: ignore[index]
    assert plan["step_s"] == pytest.approx(step / (8 * 100e12 * 0.5))
    assert plan["run"]["hours"] == pytest.approx(10 * plan["step_s"] / 3600)  # type: ignore[index,operator]
    assert plan["run"]["gpu_hours"] == pytest.approx(8 * plan["run"]["hours"])  # type: ignore[index]


def test_what_does_not_fit_is_said_with_what_does(capsys: pytest.CaptureFixture[str]) -> None:
    memory = ("--gpu-memory", "24GB", "--set", "data.global_batch=256")
    assert main(["plan", "vision/mae", "--gpus", "8", *SEVEN_BILLION, *memory]) == 0
    table = capsys.readouterr().out
    assert "does not fit into GPUs of 22.352 GiB; train.zero=3 on " in table


def test_a_limit_in_hours_tells_how_many_gpus_it_takes(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = ["plan", pictures, "--vocab-size", "100", "--peak-tflops", "1e-6", "--mfu", "1"]
    assert main([*slow, "--hours-limit", "1e-4"]) == 0
    assert "does not end within 0.0001 h: that takes " in capsys.readouterr().out
    assert main([*slow, "--hours-limit", "1e4"]) == 0
    assert "ends within 10000 h" in capsys.readouterr().out


def test_what_only_data_tell_is_asked_for(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", pictures]) == 3
    assert "add --vocab-size N, or --data words=PATH" in capsys.readouterr().err
    epochs = ("--set", "train.steps=null", "--set", "train.epochs=2")
    assert main(["plan", pictures, "--vocab-size", "100", *epochs]) == 0
    table = capsys.readouterr().out
    assert "not known: steps: train.epochs counts samples of pictures, texts" in table
    assert "the run:" not in table


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--gpus", "3"], "data.global_batch must be divisible by GPUs x train.accumulate = 3 x 1"),
        (["--gpus", "0"], "--gpus must be above 0, but is 0"),
        (["--mfu", "1.5"], "--mfu must be above 0 and at most 1, but is 1.5"),
        (["--gpu-type", "abacus"], "--gpu-type must be one of a100, h100"),
        (["--gpu-memory", "much"], "--gpu-memory must be a size such as 80GB"),
        (["--gpu-memory", "GB"], "--gpu-memory must be a size such as 80GB"),
    ],
)
def test_wrong_options_are_told(
    arguments: list[str], fault: str, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", pictures, "--vocab-size", "100", *arguments]) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_recipes() if "results" not in name])
def test_every_shipped_recipe_is_planned_on_shapes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(capsys, name, "--vocab-size", "30522")
    assert plan["step"]["tried"] == {}  # type: ignore[index]
    assert plan["step"]["forward"] > 0  # type: ignore[index]

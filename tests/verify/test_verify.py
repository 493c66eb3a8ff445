"""A right loss is found exact, and each wrong one for what is wrong with it."""

import pytest

from ssl_scale.cli.main import main
from ssl_scale.errors import RecipeError
from ssl_scale.verify import checks
from ssl_scale.verify.finding import Finding
from ssl_scale.verify.loading import Choice, with_settings
from ssl_scale.verify.verify import verify

LOSSES = "tests.verify.losses"


def choice(name: str, *settings: str) -> Choice:
    return with_settings(f"{LOSSES}:{name}", settings)


def faults(name: str) -> dict[str, str]:
    """What is found in one process: check -> what is told."""
    found, _ = checks.on_one_process(choice(name), [])
    return {each.check: each.told for each in found if each.is_fault}


@pytest.mark.dist
def test_a_right_loss_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-loss", f"{LOSSES}:Agree", "--set", "scale=2"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert last == "EXACT"
    assert sum(row.startswith(("2 processes", "4 processes")) for row in rows) == 5
    assert [row for row in rows if "nothing in the loss itself keeps features" in row]


@pytest.mark.dist
@pytest.mark.parametrize(
    ("name", "row", "what"),
    [
        ("MeanOfMeans", "2 processes, unequal counts", "the loss is"),
        ("DetachedGather", "4 processes, a last batch of 6", "the gradient of"),
    ],
)
def test_what_depends_on_how_the_batch_is_cut_is_told(
    name: str, row: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify-loss", f"{LOSSES}:{name}"]) == 1
    *rows, last = capsys.readouterr().out.splitlines()
    assert last.startswith("DIFFERS in ") and ", most by " in last
    (found,) = [each for each in rows if each.startswith(row)]
    assert f"differs: {what}" in found


@pytest.mark.dist
def test_ranks_that_wait_for_each_other_are_told_apart_and_end() -> None:
    *_, last = verify(choice("SkipsCollectives"), limit_s=10.0)
    assert last.check == "2 processes, one has nothing" and last.result == "fails"
    assert "every rank must call the same collectives" in last.told


@pytest.mark.dist
def test_absent_samples_that_leak_are_found_first_and_alone() -> None:
    (found,) = verify(choice("LetsAbsentIn"))
    assert found.told == "loss and gradients must be finite, but are not: absent samples hold NaN"


@pytest.mark.parametrize(
    ("name", "check", "told"),
    [
        ("CountsAbsent", "samples without image", "instead of"),
        ("CountsAbsent", "no items at all", "count must be 0, but is 13"),
        ("HidesPairs", "accumulation, 5 + 8 samples", "must say `pairs = True`"),
        ("OrderMatters", "order of samples", "the loss is"),
        ("NotFiniteAtCollapse", "collapse", "at constant features the loss is nan"),
        ("HalfPrecision", "bf16", "the loss must be computed in fp32"),
        ("Forgets", "no items at all", "gets no gradient, not even zero"),
        ("Fp32", "order of samples", "so little that something may be cast to fp32"),
    ],
)
def test_what_is_wrong_in_one_process_is_told(name: str, check: str, told: str) -> None:
    assert told in faults(name)[check]


def test_a_parameter_of_the_objective_itself_is_told() -> None:
    found = checks.plain(choice("OwnsParameter"))
    assert found.result == "fails"
    assert found.told.startswith("temperature must be a parameter of a module of its own")


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(choice: Choice) -> Finding:
        raise KeyError("nothing of that name")

    monkeypatch.setattr(checks, "CHECKS", (order,))
    (found,), _ = checks.on_one_process(choice("Agree"), [])
    assert found.result == "fails"
    assert "KeyError: 'nothing of that name' (" in found.told and "test_verify.py:" in found.told


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (f"{LOSSES}:Missing", (), "module tests.verify.losses has no class 'Missing'"),
        ("tests.verify.missing:Agree", (), "'tests.verify.missing' cannot be imported"),
        ("tests.verify.broken:Agree", (), "must be importable, but raises ZeroDivisionError"),
        ("NTXemt", (), "there is no Objective 'NTXemt'; did you mean 'NTXent'"),
        (f"{LOSSES}:Refuses", (), "Refuses cannot be built: scale must be even, but is odd"),
        (f"{LOSSES}:Agree", ("scale=-1",), "--set scale: scale: must be greater than 0, but is -1"),
        (f"{LOSSES}:Agree", ("scael=1",), "Agree takes no 'scael'; did you mean 'scale'"),
        (f"{LOSSES}:Agree", ("encoder=picture",), "encoders has no 'picture'; there is image"),
        (f"{LOSSES}:Agree", ("scale",), "must read path.to.key=value"),
        (f"{LOSSES}:NeedsSize", (), "size: must be given to NeedsSize"),
    ],
)
def test_what_cannot_be_loaded_or_built_is_one_clear_line(
    name: str, settings: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for each in settings for word in ("--set", each)]
    assert main(["verify-loss", name, *options]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("error: ")
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.dist
def test_settings_with_which_it_cannot_run_are_an_error() -> None:
    with pytest.raises(RecipeError, match="cannot run with these settings: ValueError: .*2 crops"):
        verify(with_settings("NTXent", ["view=image"]))

import subprocess
import sys
from pathlib import Path

import pytest

from ssl_scale.encoders.encoder import Encoder
from ssl_scale.optim.schedule import Schedule
from ssl_scale.part import Part
from ssl_scale.recipe.rooms import classes_in, find_part, parts_in, room_of


def write_room(folder: Path, **modules: str) -> None:
    room = folder / "some_room"
    room.mkdir()
    for name, text in modules.items():
        (room / f"{name}.py").write_text(text)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


IMPORTS = "from ssl_scale.part import Part\nfrom ssl_scale.recipe.rooms import *\n"


def test_only_the_module_of_the_part_that_is_named_is_imported(tmp_path: Path) -> None:
    write_room(
        tmp_path,
        __init__="",
        wanted="from ssl_scale.part import Part\nclass Wanted(Part): ...\n",
        other="raise RuntimeError('imported')\nclass Other(Part): ...\n",
    )
    code = IMPORTS + "print(find_part('Wanted', Part, 'some_room'), parts_in('some_room', Part))"
    assert run(code, tmp_path) == "<class 'some_room.wanted.Wanted'> ['Other', 'Wanted']"


def test_two_parts_of_one_name_in_a_room_are_an_error(tmp_path: Path) -> None:
    write_room(tmp_path, __init__="", a="class Same: ...\n", b="class Same: ...\n")
    code = IMPORTS + (
        "try: find_part('Same', Part, 'some_room')\nexcept LookupError as error: print(error)"
    )
    assert run(code, tmp_path) == (
        "name must be unique in some_room, but 'Same' is in some_room.a and some_room.b"
    )


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    write_room(tmp_path, __init__="", a="import not_installed\nclass Lone: ...\n")
    code = IMPORTS + (
        "try: find_part('Lone', Part, 'some_room')\nexcept LookupError as error: print(error)"
    )
    assert "but 'not_installed' cannot be imported" in run(code, tmp_path)


def test_discovery_does_not_run_code(tmp_path: Path) -> None:
    write_room(tmp_path, __init__="", a="open('owned', 'w')\nclass Lone: ...\n")
    run(IMPORTS + "classes_in('some_room')", tmp_path)
    assert not (tmp_path / "owned").exists()


def test_parts_are_found_through_their_bases_by_name() -> None:
    assert room_of(Schedule) == "ssl_scale.optim"
    assert {"Constant", "Cosine", "WarmupCosine"} <= set(parts_in("ssl_scale.optim", Schedule))
    assert "AdamW" not in parts_in("ssl_scale.optim", Schedule)
    assert find_part("tests.recipe.parts:TinyEncoder", Encoder, "ssl_scale.encoders")


def test_a_class_that_is_no_such_part_is_refused() -> None:
    with pytest.raises(LookupError, match="must be a Schedule, but tests.recipe.parts:Tiny"):
        find_part("tests.recipe.parts:TinyEncoder", Schedule, "ssl_scale.optim")


ROOMS = ("data", "encoders", "heads", "masking", "objectives", "optim", "probes", "teachers")


@pytest.mark.parametrize("room", ROOMS)
def test_our_rooms_hold_no_two_parts_of_one_name(room: str) -> None:
    package = f"ssl_scale.{room}"
    classes = classes_in(package)
    twice = {name for name, sources in classes.items() if len(sources) > 1}
    assert not twice.intersection(parts_in(package, Part))

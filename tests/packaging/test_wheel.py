"""The built wheel, installed beside nothing of ours: recipes by name, no names that collide."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGED = ["ssl_scale", "launch", "data_tools", "recipes"]
INSTALLED_AS = {
    "launch": "ssl_scale_launch",
    "data_tools": "ssl_scale_data_tools",
    "recipes": "ssl_scale_recipes",
}

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build folder left in the repository would get into the wheel."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in PACKAGED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site_packages = next((folder / "lib").glob("python*")) / "site-packages"
    # Behind its own packages, and without the .pth files of this environment: those would bring the
    # editable install of the sources.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_every_source_and_recipe_under_its_own_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"ssl_scale", *INSTALLED_AS.values()}
    expected = set()
    for folder in PACKAGED:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (
                ".py",
                ".yaml",
                ".typed",
                ".html",
                ".css",
                ".js",
                ".json",
                ".sh",
            ):
                inner = path.relative_to(ROOT / folder)
                expected.add((Path(INSTALLED_AS.get(folder, folder)) / inner).as_posix())
    assert names == expected


def test_imports_come_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    packages = ["ssl_scale", *INSTALLED_AS.values()]
    program = f"import {', '.join(packages)}\nprint(*[p.__file__ for p in ({', '.join(packages)})])"
    places = run(installed / "bin" / "python", "-c", program, cwd=tmp_path).stdout.split()
    assert len(places) == 4
    assert all(Path(place).is_relative_to(installed) for place in places)


@pytest.mark.parametrize("command", ["ssl-scale", "ssl-data", "ssl-launch"])
def test_commands_start_in_an_empty_folder(command: str, installed: Path, tmp_path: Path) -> None:
    assert "examples" in run(installed / "bin" / command, "--help", cwd=tmp_path).stdout.lower()


def names_of_recipes() -> list[str]:
    folder = ROOT / "recipes"
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(path.as_posix() for path in paths if not {"_base", "results"} & {*path.parts})


@pytest.mark.parametrize("name", names_of_recipes())
def test_recipes_are_found_by_name_in_an_empty_folder(
    name: str, installed: Path, tmp_path: Path
) -> None:
    shown = run(installed / "bin" / "ssl-scale", "show", name, cwd=tmp_path).stdout
    assert "objectives:" in shown


def test_there_are_recipes() -> None:
    assert names_of_recipes()

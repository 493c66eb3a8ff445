"""The container images: the CPU one built step by step in a clean Debian, and both as text."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.clean_root import make_root, mirror
from tests.packaging.image_build import Build, Stage, steps_of
from tests.packaging.pip_settings import folders_of, pip_settings

ROOT = Path(__file__).parents[2]
CPU = ROOT / "docker/Dockerfile.cpu"
IMAGES = (CPU, ROOT / "docker/Dockerfile")


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.name)
def test_an_image_holds_no_compiler_and_nobody_is_root_in_it(dockerfile: Path) -> None:
    steps = steps_of(dockerfile)
    starts = [number for number, step in enumerate(steps) if step[0] == "FROM"]
    last = steps[starts[-1] :]
    users = [value for instruction, value in last if instruction == "USER"]
    assert users
    assert users[-1].isdecimal()
    assert int(users[-1]) > 0
    assert "devel" not in last[0][1]
    assert not any(re.search(r"\b(g\+\+|python3-dev|make)\b", value) for _, value in last)


def test_both_images_end_alike() -> None:
    ends = []
    for dockerfile in IMAGES:
        steps = steps_of(dockerfile)
        start = max(number for number, step in enumerate(steps) if step[0] == "FROM")
        ends.append([step for step in steps[start + 1 :] if step[0] not in ("LABEL", "ENV")])
    assert ends[0] == ends[1]


def require_a_clean_root() -> str:
    """The mirror; skip where no root can be made; where CI is true and it could, fail."""
    if os.geteuid() != 0:
        pytest.skip("a clean Debian root is made by root only")
    found = mirror()
    if found and shutil.which("debootstrap") and shutil.which("unshare"):
        return found
    message = "an image is built with debootstrap and a mirror of Debian (DEBIAN_MIRROR)"
    if os.environ.get("CI") == "true" and shutil.which("apt-get"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def image() -> Iterator[Stage]:
    """The CPU image."""
    source = require_a_clean_root()
    settings = pip_settings()
    # Inside, certificates lie where the package that brings them puts them.
    certificates = settings.pop("PIP_CERT", None)
    given = {}
    if index := settings.pop("PIP_EXTRA_INDEX_URL", None):
        given["TORCH_INDEX"] = index
    # A user inside must be able to pass through; pytest's folders are the tester's alone.
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    try:
        suite = re.findall(r"FROM debian:(\w+)-slim", CPU.read_text())
        assert len(set(suite)) == 1
        make_root(suite[0], folder / "base", source)
        if certificates is not None:
            shutil.copy(certificates, folder / "base/etc/certificates-of-the-builder.crt")
            settings["PIP_CERT"] = "/etc/certificates-of-the-builder.crt"
        build = Build(ROOT, folder / "base", folder, given, settings, folders_of(settings | given))
        yield build.execute(CPU)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_cpu_image_shows_help_unless_told(image: Stage) -> None:
    assert "usage: ssl-scale" in image.run([*image.entrypoint, *image.command])


@pytest.mark.slow
def test_a_run_of_two_processes_trains_in_the_cpu_image(image: Stage) -> None:
    assert image.run(["id", "-u"]).strip() == "10001"
    image.run(["ssl-data", "example", "digits", "raw"])
    for split in ("train", "test"):
        image.run(["ssl-data", "build", f"raw/{split}", f"digits/{split}", "--workers=0"])
    image.run(
        [*image.entrypoint, "ssl-launch", "local", "demo_self_supervised", "--processes=2",
         "--data=digits=digits", "--set=train.steps=2", "--run-folder=run"]
    )  # fmt: skip
    assert (image.inside("run/COMPLETED")).read_text() == "2\n"


@pytest.mark.slow
def test_nobody_can_change_the_programs_of_the_cpu_image(image: Stage) -> None:
    writable = ["find", "/app", "-writable", "-not", "-type", "l", "-print", "-quit"]
    assert image.run(writable) == ""

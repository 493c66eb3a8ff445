"""Builds an image from a Dockerfile by executing its steps in clean Debian roots.

Knows what our Dockerfiles use, and refuses anything else. Paths of COPY are taken literally.
"""

import fnmatch
import io
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

from tests.packaging.clean_root import run_in

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DESCRIBING = ("LABEL", "HEALTHCHECK")


@dataclass
class Stage:
    """A stage of a build, and at its end the image.

    Args:
        root: its file system.
        environment: what ENV has set.
        arguments: what ARG has declared.
        folder: where commands start.
        user: who runs them.
        entrypoint: words before the command.
        command: what runs unless told.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(
        self, words: Sequence[str], more: Mapping[str, str] = {}, shown: Sequence[Path] = ()
    ) -> str:
        """What a command prints, run as a container would."""
        return run_in(
            self.root, words, folder=self.folder, user=self.user,
            environment={**more, **self.environment}, shown=shown,
        )  # fmt: skip

    def note(self, instruction: str, value: str, given: Mapping[str, str]) -> None:
        """Take a step that executes nothing.

        Args:
            instruction: its name.
            value: what follows it.
            given: values of build arguments.
        """
        match instruction:
            case "ARG":
                name, _, default = value.partition("=")
                self.arguments[name] = given.get(name, default.strip('"'))
            case "ENV":
                pairs = [word.partition("=") for word in value.split()]
                self.environment |= {name: setting for name, _, setting in pairs}
            case "WORKDIR":
                self.folder = value
                self.inside(".").mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = value
            case "ENTRYPOINT":
                self.entrypoint = tuple(json.loads(value))
            case "CMD":
                self.command = tuple(json.loads(value))
            case _:
                assert instruction in DESCRIBING, f"{instruction} must be known, but is not"

    def inside(self, path: str) -> Path:
        """Where a path of the image lies on this machine."""
        return self.root / (Path(self.folder) / path).relative_to("/")


def steps_of(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions and what follows them, continued lines joined, comments left out."""
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
    steps = [(step["instruction"], step["value"]) for step in parser.structure]
    return [step for step in steps if step[0] != "COMMENT"]


@dataclass
class Build:
    """A build.

    Args:
        context: what COPY copies from.
        base: a clean root of the Debian that the images start from.
        folder: for the stages' roots.
        given: values of build arguments.
        variables: of every RUN step, that stay out of the image.
        shown: folders of this machine that RUN steps can read.
    """

    context: Path
    base: Path
    folder: Path
    given: Mapping[str, str]
    variables: Mapping[str, str]
    shown: Sequence[Path]

    def execute(self, dockerfile: Path) -> Stage:
        """Take all steps; returns the last stage."""
        stages: dict[str, Stage] = {}
        stage: Stage | None = None
        for instruction, value in steps_of(dockerfile):
            if instruction == "FROM":
                stage = self._start(value, stages)
                continue
            assert stage is not None, f"{dockerfile}: must start with FROM"
            if instruction == "RUN":
                more = {**self.variables, **stage.arguments}
                stage.run(["/bin/sh", "-c", value], more, self.shown)
            elif instruction == "COPY":
                self._copy(value.split(), stage, stages)
            else:
                stage.note(instruction, value, self.given)
        assert stage is not None
        return stage

    def _start(self, value: str, stages: dict[str, Stage]) -> Stage:
        name = value.partition(" AS ")[2] or "image"
        root = self.folder / name
        subprocess.run(["cp", "--archive", str(self.base), str(root)], check=True)
        stages[name] = Stage(root)
        return stages[name]

    def _copy(self, words: list[str], stage: Stage, stages: Mapping[str, Stage]) -> None:
        if words[0].startswith("--from="):
            option, source, target = words
            root = stages[option.removeprefix("--from=")].root
            copied = [str(root / source.lstrip("/")), str(stage.inside(target))]
            subprocess.run(["cp", "--archive", "--no-target-directory", *copied], check=True)
            return
        *names, target = words
        into = stage.inside(target)
        for name in names:
            path = self.context / name
            if path.is_dir():
                shutil.copytree(path, into, ignore=self._ignored, dirs_exist_ok=True)
            else:
                to = into / path.name if target.endswith("/") else into
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)

    def _ignored(self, folder: str, names: list[str]) -> set[str]:
        patterns = (self.context / ".dockerignore").read_text().split()
        inner = Path(folder).relative_to(self.context)
        return {
            name
            for name in names
            for pattern in patterns
            if fnmatch.fnmatch(name, pattern.removeprefix("**/"))
            and (pattern.startswith("**/") or inner == Path())
        }

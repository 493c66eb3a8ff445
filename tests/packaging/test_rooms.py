"""Rules between the rooms that import-linter cannot express."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("ssl_scale", "data_tools", "launch")
    for path in (ROOT / folder).rglob("*.py")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Who may name torch.distributed besides dist.py, and why.
MAY_NAME_TORCH_DISTRIBUTED: dict[str, str] = {}

# Where the name to import differs from the name to install.
INSTALLED_FROM = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "flash_attn": "flash-attn",
}
OURS = {"ssl_scale", "ssl_scale_launch", "ssl_scale_data_tools", "ssl_scale_recipes"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_torch_distributed(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if any(
                n.name.startswith("torch.distributed") for n in names
            ):
                return True
            case ast.ImportFrom(module=str(module)) if module.startswith("torch.distributed"):
                return True
            case ast.ImportFrom(module="torch", names=names) if any(
                n.name == "distributed" for n in names
            ):
                return True
            case ast.Attribute(value=ast.Name(id="torch"), attr="distributed"):
                return True
    return False


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names of absolute imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(
    "code",
    [
        "import torch.distributed as d",
        "from torch.distributed import all_reduce",
        "from torch import distributed",
        "import torch\ntorch.distributed.barrier()",
    ],
)
def test_every_way_to_name_torch_distributed_is_seen(code: str) -> None:
    assert names_torch_distributed(ast.parse(code))


def test_only_dist_names_torch_distributed() -> None:
    naming = {
        relative(path) for path in SOURCES if names_torch_distributed(ast.parse(path.read_text()))
    }
    assert naming == {"ssl_scale/dist.py", *MAY_NAME_TORCH_DISTRIBUTED}


def test_what_is_imported_is_declared() -> None:
    optional = PROJECT["optional-dependencies"]
    declared = {
        Requirement(text).name.lower()
        for text in (
            *PROJECT["dependencies"],
            *(text for extra, texts in optional.items() if extra != "dev" for text in texts),
        )
    }
    used = {
        (name, relative(path))
        for path in SOURCES
        for name in imported(ast.parse(path.read_text()))
        if name not in sys.stdlib_module_names and name not in OURS
    }
    undeclared = {
        (name, path)
        for name, path in used
        if INSTALLED_FROM.get(name, name).lower().replace("_", "-") not in declared
    }
    assert undeclared == set()


def test_the_locked_versions_lie_in_the_declared_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {
        name.lower().replace("_", "-"): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, requirements):
        version = locked[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version, prereleases=True), requirement
    assert Version(locked["torch"]) == Version("2.13.0")


def test_compromised_releases_are_never_installed() -> None:
    lightning = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "lightning")
    assert not lightning.specifier.contains("2.6.2")
    assert not lightning.specifier.contains("2.6.3")
    assert lightning.specifier.contains("2.6.6")


def test_constraints_name_versions_only() -> None:
    # A path, an address or a local label (+cpu) would hold on one machine only.
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert len(entries) > 100
    assert [
        line for line in entries if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)
    ] == []

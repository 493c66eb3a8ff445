"""No part of the product reads files in a way that can run what is in them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("ssl_scale", "data_tools", "launch")
    for path in (ROOT / folder).rglob("*.py")
)
# Who unpickles, and why: what these read was written by a process that they started themselves.
MAY_UNPICKLE = {
    "ssl_scale/data/slots.py": "batches of a loader's worker, in shared memory",
    "ssl_scale/verify/ranks.py": "what the ranks of a check return",
}
UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe_reads(source: str) -> Iterator[str]:
    """What in a module could run code that it reads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.partition(".")[0] in UNPICKLERS)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in UNPICKLERS:
                yield module
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                yield "torch.load"
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    is_off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                    if keyword.arg in ("allow_pickle", "trust_remote_code") and not is_off:
                        yield str(keyword.arg)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.load(path, weights_only=True)", ["torch.load"]),
        ("import pickle", ["pickle"]),
        ("from cloudpickle import loads", ["cloudpickle"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(path, allow_pickle=False)", []),
        ("AutoModel.from_pretrained(path, trust_remote_code=told)", ["trust_remote_code"]),
    ],
)
def test_every_way_is_seen(source: str, found: list[str]) -> None:
    assert list(unsafe_reads(source)) == found


def test_nothing_is_read_that_could_run() -> None:
    assert len(SOURCES) > 200
    found = {
        path.relative_to(ROOT).as_posix(): list(unsafe_reads(path.read_text())) for path in SOURCES
    }
    ways = {name: found for name, found in found.items() if found}
    assert ways == dict.fromkeys(MAY_UNPICKLE, ["pickle"])

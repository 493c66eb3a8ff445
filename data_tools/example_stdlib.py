"""Python's own standard library as text: functions with docstrings, one file a function.

Whole modules are held out, by a hash of their name, so that no neighbour of a test function is
trained on; a function that stands in several modules is taken once.
"""

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from ssl_scale.errors import DataError

from .example_files import write_files

SKIPPED = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
)
MAX_CHARS = 2000
MIN_CHARS = 60
TEST_SHARE = 10  # every tenth module, by hash


def make_stdlib(folder: Path, num_functions: int = 6000) -> dict[str, int]:
    """Write ``train/`` and ``test/``.

    Args:
        folder: where to.
        num_functions: at most so many; chosen by hash if there are more.

    Returns:
        Functions in each folder.

    Raises:
        DataError: this Python has no sources of its standard library.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    seen: set[str] = set()
    for module, path in _modules(root):
        for line, source in _functions(path):
            if source not in seen:
                seen.add(source)
                found[f"{module}-{line:05d}"] = source
    if not found:
        raise DataError(f"{root} must hold the standard library's sources, but holds none")
    kept = sorted(sorted(found, key=_hash)[:num_functions])
    folders: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    for key in kept:
        folders["test" if is_held_out(key.rpartition("-")[0]) else "train"][f"{key}.txt"] = found[
            key
        ].encode()
    write_files(folder, folders)
    return {name: len(files) for name, files in folders.items()}


def is_held_out(module: str) -> bool:
    """Whether a module's functions are for testing."""
    return _hash(module) % TEST_SHARE == 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, subfolders, files in os.walk(root):
        # Names that are no identifiers belong to templates and test data.
        subfolders[:] = sorted(
            name for name in subfolders if name not in SKIPPED and name.isidentifier()
        )
        base = Path(folder).relative_to(root).parts
        for name in sorted(files):
            stem, _, extension = name.partition(".")
            if stem.isidentifier() and extension == "py":
                yield "-".join((*base, stem)), Path(folder, name)


def _functions(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in old code that is only read here
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return  # other encodings, and files that are broken on purpose
    lines = text.split("\n")  # as Python counts them: a form feed ends no line
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is None or node.end_lineno is None:
            continue
        # Not textwrap.dedent: a string of several lines may stand further left than its function.
        indent = lines[node.lineno - 1][: node.col_offset]
        body = [line.removeprefix(indent) for line in lines[node.lineno - 1 : node.end_lineno]]
        source = "\n".join(body) + "\n"
        if MIN_CHARS <= len(source) <= MAX_CHARS:
            yield node.lineno, source

"""Tokenizers: the same texts give the same file, and any text comes back."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssl_scale_data_tools.cli import main
from tokenizers import Tokenizer

WORDS = "the quick brown fox jumps over lazy dog while def return self value in range".split()  # noqa: SIM905


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def texts(module_path: Path) -> Path:
    """A data set of 200 texts, built from files."""
    raw = module_path / "raw"
    raw.mkdir()
    for i in range(200):
        words = [WORDS[(i * step + i // 7) % len(WORDS)] for step in range(1, 30)]
        (raw / f"{i}.txt").write_text(" ".join(words) + ("ä" * (i % 5)))
        (raw / f"{i}.cls").write_text("1")
    assert run("build", raw, module_path / "texts", "--shard-size", 60, "--workers", 0) == 0
    return module_path / "texts"


@pytest.fixture(scope="module")
def trained(texts: Path) -> Path:
    folder = texts.parent / "tokenizer"
    assert run("tokenize", "train", texts, "--vocab-size", 400, "--output", folder) == 0
    return folder / "tokenizer.json"


def test_special_tokens_come_first_and_frame_a_text(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [tokenizer.token_to_id(name) for name in names] == [0, 1, 2, 3, 4]
    ids = tokenizer.encode("the quick fox").ids
    assert (ids[0], ids[-1]) == (2, 3)
    assert all(id > 4 for id in tokenizer.encode("the fox", add_special_tokens=False).ids)


@given(text=st.text())
def test_any_text_comes_back(trained: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(trained))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    # A text that spells a special token is that token, which decoding leaves out.
    if not any(name in text for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
        assert tokenizer.decode(ids) == text


def test_training_learns_the_words(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained))
    assert len(tokenizer.encode(" while return", add_special_tokens=False).ids) == 2


@pytest.mark.parametrize("threads", ["1", "4"])
def test_equal_texts_give_an_equal_file_in_any_process(
    texts: Path, trained: Path, tmp_path: Path, threads: str
) -> None:
    command = [sys.executable, "-m", "ssl_scale_data_tools.cli", "tokenize", "train", str(texts)]
    options = ["--vocab-size", "400", "--output", str(tmp_path)]
    environment = {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    subprocess.run([*command, *options], env=environment, check=True, capture_output=True)
    assert (tmp_path / "tokenizer.json").read_bytes() == trained.read_bytes()


def test_figures_are_printed(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--vocab-size", 300, "--output", tmp_path)
    assert run("tokenize", "train", texts, texts, *options) == 0
    line = capsys.readouterr().out
    assert "300 tokens from 400 texts" in line and "tokens a word" in line


def test_what_cannot_be_is_refused(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, reason in (
        (("--vocab-size", 100), "--vocab-size must be at least 261"),
        (("--extension", "md"), "must hold .md texts, but holds only ['cls', 'txt']"),
    ):
        assert run("tokenize", "train", texts, "--output", tmp_path, *options) == 2
        assert reason in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    assert run("tokenize", "train", tmp_path, "--output", tmp_path) == 2
    assert "error: " in capsys.readouterr().err

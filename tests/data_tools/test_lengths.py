"""Lengths of samples: what is counted, how a killed run goes on, and what seals the column."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ssl_scale_data_tools.cli import main
from ssl_scale_data_tools.executors import LocalExecutor
from ssl_scale_data_tools.lengths import plan_lengths, write_lengths
from tokenizers import Tokenizer, models, pre_tokenizers

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.audio_field import AudioField
from ssl_scale.data.decoding import LabelField
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.source import Source
from ssl_scale.data.text_field import TextField
from ssl_scale.errors import DataError
from tests.data.shards import write_folder


def npy(length: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((length, 3), np.float32))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve samples in three shards; number 5 has no text, number 7 none that is UTF-8."""
    samples = []
    for number in range(12):
        members = {"cls": b"1", "points": npy(number + 1), "txt": b"word " * number}
        if number == 5:
            del members["txt"]
        if number == 7:
            members["txt"] = b"\xff"
        samples.append((f"s{number:02d}", members))
    write_folder(tmp_path / "set", [samples[:5], samples[5:6], samples[6:]])
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "set"


def text_field(folder: Path, max_tokens: int = 8) -> TextField:
    return TextField("txt", str(folder.parent / "tokenizer.json"), max_tokens)


def measure(folder: Path, *arguments: str) -> int:
    return main(["lengths", str(folder), "--workers", "0", *arguments])


def test_texts_are_counted_once_for_any_cut(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = str(folder.parent / "tokenizer.json")
    assert measure(folder, "--extension", "txt", "--tokenizer", tokenizer) == 0
    assert "10 of 12 samples, mean 5.4, 1 unreadable" in capsys.readouterr().out
    for max_tokens in (8, 20):
        field = text_field(folder, max_tokens)
        source = Source("s", folder, {"text": field}, seed=3, streams=2, window=4)
        lengths = Lengths(source, "text")
        positions = np.arange(30)
        for ref, length in zip(
            source.locate_all(positions), lengths.at(positions).tolist(), strict=True
        ):
            number = int(source.key(ref)[1:])
            expected = 0 if number in (5, 7) else len(field.decode(b"word " * number, "txt"))
            assert length == expected == (0 if number in (5, 7) else min(number + 2, max_tokens))
        assert lengths.mean() == pytest.approx(lengths.at(np.arange(12)).mean())


def test_arrays_are_counted_too(folder: Path) -> None:
    assert measure(folder, "--extension", "points") == 0
    source = Source("s", folder, {"points": ArrayField("points", [-1, 3])}, shuffle=False)
    assert Lengths(source, "points").at(np.arange(12)).tolist() == list(range(1, 13))


def test_entries_of_archives_and_of_json_are_counted(tmp_path: Path, folder: Path) -> None:
    samples = []
    for number in range(6):
        file = io.BytesIO()
        np.savez(file, points=np.zeros((number, 3)), other=np.zeros(9))
        title = None if number == 3 else "word " * number
        about = json.dumps({"a": title}).encode()
        samples.append((str(number), {"npz": file.getvalue(), "json": about}))
    write_folder(tmp_path / "entries", [samples[:4], samples[4:]])
    tokenizer = str(folder.parent / "tokenizer.json")
    fields = {
        "points": ArrayField("npz", [-1, 3], entry="points"),
        "title": TextField("json", tokenizer, 8, entry="a"),
    }
    source = Source("s", tmp_path / "entries", fields, shuffle=False)
    for name, expected in (("points", range(6)), ("title", [2, 3, 4, 0, 6, 7])):
        with pytest.raises(DataError, match="has none; run") as told:
            Lengths(source, name)
        options = str(told.value).rpartition(f"{tmp_path / 'entries'} ")[2].rstrip("`").split()
        assert measure(tmp_path / "entries", *options) == 0
        assert Lengths(source, name).at(np.arange(6)).tolist() == [*expected]


def test_sounds_are_counted_as_they_will_be_after_resampling_and_cutting(tmp_path: Path) -> None:
    samples = []
    for number, rate_hz in enumerate([16_000, 8_000, 22_050, 44_100]):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(1000 + 777 * number), rate_hz, format="WAV")
        samples.append((str(number), {"wav": file.getvalue()}))
    samples.append(("4", {"wav": samples[0][1]["wav"][:-1]}))
    samples.append(("5", {"cls": b"1"}))
    write_folder(tmp_path / "sounds", [samples])
    field = AudioField("wav", 16_000, max_s=0.1)
    source = Source("s", tmp_path / "sounds", {"sound": field}, shuffle=False)
    with pytest.raises(DataError, match="has none; run") as told:
        Lengths(source, "sound")
    options = str(told.value).rpartition(f"{tmp_path / 'sounds'} ")[2].rstrip("`").split()
    assert measure(tmp_path / "sounds", *options) == 0
    expected = [len(field.decode(members["wav"], "wav")) for _, members in samples[:4]]
    assert expected[0] == 1000 and expected[1] == 1600  # the latter is cut
    assert Lengths(source, "sound").at(np.arange(6)).tolist() == [*expected, 0, 0]
    uncut = AudioField("wav", 16_000, max_s=60)
    whole = Source("s", tmp_path / "sounds", {"sound": uncut}, shuffle=False)
    expected = [len(uncut.decode(members["wav"], "wav")) for _, members in samples[:4]]
    assert Lengths(whole, "sound").at(np.arange(4)).tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sample-rate-hz", "0"), "--sample-rate-hz must be at least 1, but is 0"),
        (("--sample-rate-hz", "8000", "--entry", "x"), "must stand without --tokenizer"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert measure(folder, "--extension", "points", *options) == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_command_that_makes_it(folder: Path) -> None:
    source = Source("s", folder, {"text": text_field(folder), "cls": LabelField("cls", 2)})
    tokenizer = folder.parent / "tokenizer.json"
    command = f"run `ssl-data lengths {folder} --extension txt --tokenizer {tokenizer}`"
    with pytest.raises(DataError, match="source 's' must have the lengths .* has none") as told:
        Lengths(source, "text")
    assert str(told.value).endswith(command)
    with pytest.raises(DataError, match="texts, sounds or arrays, but 'cls' is a LabelField"):
        Lengths(source, "cls")


def test_lengths_of_other_contents_or_another_tokenizer_are_refused(folder: Path) -> None:
    tokenizer = folder.parent / "tokenizer.json"
    assert measure(folder, "--extension", "txt", "--tokenizer", str(tokenizer)) == 0
    lengths = Lengths(Source("s", folder, {"text": text_field(folder)}), "text")
    tokenizer.write_text(tokenizer.read_text().replace("[SEP]", "[sep]") + " ")
    other = TextField("txt", str(tokenizer), 8, end=None)
    with pytest.raises(DataError, match="has none"):
        Lengths(Source("s", folder, {"text": other}), "text")
    seal = lengths.path.with_suffix(".json")
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "dataset": "0"}))
    tokenizer.write_text(tokenizer.read_text().replace("[sep]", "[SEP]").rstrip(" "))
    with pytest.raises(DataError, match="must be of the data set as it is, .* but is of .*; run"):
        Lengths(Source("s", folder, {"text": text_field(folder)}), "text")


def test_a_run_does_what_is_missing_and_gives_the_same_bytes(folder: Path) -> None:
    tasks = plan_lengths(folder, ["points"], None)
    done: list[str] = []

    def write(told: list[str]) -> bytes:
        path, _ = write_lengths(
            folder, tasks, LocalExecutor(), 0, lambda task, _: done.append(task.name), told.append
        )
        return path.read_bytes()

    first = write([])
    assert done == ["000000", "000001", "000002"]
    (folder / "lengths" / ".work" / "points-npy" / "000001.npy").unlink()
    told: list[str] = []
    assert write(told) == first
    assert done[3:] == ["000001"] and told == ["2 of 3 tasks were done before and are kept"]


def test_an_extension_that_is_not_there_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(folder, "--extension", "flac") == 2
    assert "but is flac; there are .cls, .points, .txt" in capsys.readouterr().err

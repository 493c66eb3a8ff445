"""Bad input gives one line and exit code 2, or is set aside with its reason; names stay inside."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from ssl_scale_data_tools.cli import main

from ssl_scale.data.index import read_dataset


def png(width: int = 4, height: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 400 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def good(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(png())
        (folder / f"{name}.txt").write_text("fine")
    return folder


def run(*arguments: object) -> int:
    """Run the command, in this process unless told."""
    workers = () if "--workers" in arguments else ("--workers", "0")
    return main([str(argument) for argument in (*arguments, *workers)])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which must be the only one and one line."""
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0]
    return errors[0]


def link_out(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(png())
    (folder / "x.png").symlink_to(folder.parent / "secret.png")


def link_folder_out(folder: Path) -> None:
    good(folder.parent / "other")
    (folder / "x.png").symlink_to(folder.parent / "other")


def colliding(folder: Path) -> None:
    (folder / "x.png").write_bytes(png())
    (folder / "x.PNG").write_bytes(png())


def non_utf8(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/x\xff.png", "wb") as file:
        file.write(png())


def file_of(name: str, content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return make


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated image": (file_of("x.png", png(40, 40)[:-200]), "must be an image that decodes"),
    "no image": (file_of("x.png", b"hello"), "must be an image, but is of no known format"),
    "a bomb": (file_of("x.png", bomb()), "exceeds limit"),
    # Pillow would hand it to Ghostscript.
    "PostScript": (file_of("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "of no known format"),
    "empty file": (file_of("x.txt", b""), "must have content, but is empty"),
    "bytes for text": (file_of("x.txt", b"\xff\xfe"), "must be UTF-8"),
    "text for label": (file_of("x.cls", b"cat"), "must be a whole number from 0, but is b'cat'"),
    "negative label": (file_of("x.cls", b"-1"), "must be a whole number from 0"),
    "no JSON": (file_of("x.json", b"{"), "must be JSON"),
    "deep JSON": (file_of("x.json", b"[" * 100_000), "must be JSON"),
    "no extension": (file_of("x", b"x"), "must have an extension"),
    "line break in name": (file_of("x\ny.txt", b"x"), "no backslash, line break or control"),
    "command to the terminal in name": (file_of("x\x1b[2J.txt", b"x"), "control character"),
    "backslash in name": (file_of("a\\x.txt", b"x"), "no backslash, line break or control"),
    "name kept by WebDataset": (file_of("__x__.txt", b"x"), "must not look like __this__"),
    "name that is not UTF-8": (non_utf8, "name must be UTF-8"),
    "a link out of the folder": (link_out, "is a link that leads out of it"),
    "a link to a folder": (link_folder_out, "must be a folder, but is a link to one"),
    "a dangling link": (lambda f: (f / "x.png").symlink_to(f / "gone"), "must exist"),
    "a loop of links": (lambda f: (f / "x.png").symlink_to(f / "x.png"), "must be readable"),
    "a pipe": (lambda f: os.mkfifo(f / "x.png"), "must be a regular file"),
    "two files for one member": (colliding, "extension must be new to its sample"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_stops_with_one_line_or_is_set_aside_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, reason = CASES[case]
    raw = good(tmp_path / "raw")
    make(raw)
    assert run("build", raw, tmp_path / "stop") == 2
    line = one_line(capsys)
    assert reason in line and "x" in line
    assert not (tmp_path / "stop" / "dataset.json").exists()

    assert run("build", raw, tmp_path / "skip", "--on-bad", "skip") == 0
    assert "1 set aside, see rejected.jsonl" in capsys.readouterr().out
    (row,) = map(json.loads, (tmp_path / "skip" / "rejected.jsonl").read_text().splitlines())
    assert reason in row["reason"] and row["where"]
    kept = 3 if case == "two files for one member" else 2
    assert read_dataset(tmp_path / "skip").num_samples == kept


def test_rejected_samples_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    raw = good(tmp_path / "raw")
    for i in range(20):
        (raw / f"{i}.txt").write_bytes(b"\xff" if i % 3 else b"fine")
    (raw / "bad").write_bytes(b"")
    for workers in (0, 2):
        folder = tmp_path / f"set{workers}"
        options = ("--on-bad", "skip", "--workers", workers, "--shard-size", 3, "--name", "set")
        assert run("build", raw, folder, *options) == 0
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("set0", "set2")
    ]
    assert files[0] == files[1]
    assert len(files[0]["rejected.jsonl"].splitlines()) == 14


def test_a_shard_whose_samples_are_all_bad_is_left_out(tmp_path: Path) -> None:
    raw = good(tmp_path / "raw")
    (raw / "c.txt").write_bytes(b"\xff")
    options = ("--on-bad", "skip", "--shard-size", 1, "--order", "listed")
    assert run("build", raw, tmp_path / "set", *options) == 0
    assert [shard.samples for shard in read_dataset(tmp_path / "set").shards] == [1, 1]
    assert not (tmp_path / "set" / "shard-000002.tar").exists()


def test_checks_may_be_lighter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = good(tmp_path / "raw")
    (raw / "x.png").write_bytes(png(40, 40)[:-200])
    assert run("build", raw, tmp_path / "header", "--check", "header") == 0
    (raw / "y.png").write_bytes(b"hello")
    assert run("build", raw, tmp_path / "header2", "--check", "header") == 2
    assert "y.png" in one_line(capsys)
    assert run("build", raw, tmp_path / "none", "--check", "none") == 0


def test_a_sample_without_a_required_extension_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = good(tmp_path / "raw")
    (raw / "b.txt").unlink()
    assert run("build", raw, tmp_path / "set", "--require", "png", "--require", "txt") == 2
    assert "b.png: sample must have .txt, but has ['png']" in one_line(capsys)


TABLE_CASES = {
    "absolute path": ({"image": "/etc/hostname.png"}, "path must be relative, but is absolute"),
    "path upwards": ({"image": "../secret.png"}, "path must stay in its folder, but has '..'"),
    "path that hides it": ({"image": "a/../../secret.png"}, "must stay in its folder"),
    "link outwards": ({"image": "out.png"}, "is a link that leads out of it"),
    "missing file": ({"image": "gone.png"}, "file must exist, but does not"),
    "folder": ({"image": "sub.png"}, "must be a regular file"),
    "number for a path": ({"image": 7}, "image must be a path, but is 7"),
    "key upwards": ({"image": "a.png", "id": "../a"}, "path must stay in its folder"),
    "absolute key": ({"image": "a.png", "id": "/a"}, "path must be relative"),
    "key with a dot": ({"image": "a.png", "id": "a.b"}, "key must have no dot"),
    "key twice": ({"image": "a.png", "id": "first"}, "key must be unique"),
    "no key": ({"image": "a.png", "id": None}, "key must be a text or a whole number"),
    "nothing": ({"image": None, "text": ""}, "row must fill one of the columns named"),
    "no row": (["a"], "line must be a JSON object"),
    "half a surrogate": ({"text": "\ud800"}, "must be valid Unicode"),
}


@pytest.mark.parametrize("case", TABLE_CASES)
def test_a_bad_row_stops_with_one_line_or_is_set_aside_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    content, reason = TABLE_CASES[case]
    raw = good(tmp_path / "raw")
    (raw / "sub.png").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (raw / "out.png").symlink_to(tmp_path / "secret.png")
    row = {"id": "x", **content} if isinstance(content, dict) else content
    rows = [{"id": "first", "image": "a.png", "text": "t"}, row]
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--file-column", "image", "--text-column", "text", "--key-column", "id")
    assert run("build", raw, tmp_path / "stop", "--table", table, *columns) == 2
    line = one_line(capsys)
    assert reason in line and "table.jsonl" in line
    assert not (tmp_path / "stop").exists()

    skip = ("--on-bad", "skip")
    assert run("build", raw, tmp_path / "skip", "--table", table, *columns, *skip) == 0
    (rejected,) = map(json.loads, (tmp_path / "skip" / "rejected.jsonl").read_text().splitlines())
    assert rejected["where"] == "table.jsonl row 2" and reason in rejected["reason"]
    assert read_dataset(tmp_path / "skip").num_samples == 1


def table_of(text: bytes, name: str = "t.csv") -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        (folder / name).write_bytes(text)
        return [folder / name, folder / "set", "--text-column", "text"]

    return make


def nothing(folder: Path) -> list[object]:
    (folder / "raw").mkdir()
    (folder / "raw" / ".hidden").touch()
    return [folder / "raw", folder / "set"]


def output_in_input(folder: Path) -> list[object]:
    return [good(folder / "raw"), folder / "raw" / "set"]


def output_in_use(folder: Path) -> list[object]:
    return [good(folder / "raw"), good(folder / "other"), "--overwrite"]


def with_options(*options: object) -> Callable[[Path], list[object]]:
    return lambda folder: [good(folder / "raw"), folder / "set", *options]


OPTION_CASES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "input missing": (lambda f: [f / "gone", f / "set"], "must be a folder or a table"),
    "input empty": (nothing, "must hold samples, but holds none"),
    "output in input": (output_in_input, "OUTPUT must lie outside INPUT"),
    "output in use": (output_in_use, "must be a new folder, an empty one"),
    "column unknown": (table_of(b"texts\nx\n"), "did you mean 'texts'?"),
    "table of another kind": (table_of(b"x", "t.xlsx"), "must end in .jsonl, .csv, .tsv"),
    "table that is not UTF-8": (table_of(b"text\n\xff\n"), "must be UTF-8"),
    "row too short": (table_of(b"text,b\nx\n"), "as many cells as the header"),
    "no columns": (lambda f: table_of(b"text\nx\n")(f)[:2], "--file-column or --text-column"),
    "column without table": (with_options("--file-column", "x"), "must come with a table"),
    "shard size": (with_options("--shard-size", "many"), "--shard-size must be like 1000"),
    "no shard size": (with_options("--shard-size", "0"), "--shard-size must be like 1000"),
    "workers": (with_options("--workers", -1), "--workers must be 0 or more, but is -1"),
    "time limit": (with_options("--time-limit", 0), "--time-limit must be more than 0"),
    "split upwards": (with_options("--split", "../x=0.5"), "--split must be like train=0.9"),
    "split sum": (with_options("--split", "a=0.5"), "splits must add up to 1"),
}


@pytest.mark.parametrize("case", OPTION_CASES)
def test_wrong_options_stop_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, reason = OPTION_CASES[case]
    assert run("build", *make(tmp_path)) == 2
    assert reason in one_line(capsys)
    assert not (tmp_path / "set").exists()


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", tmp_path / "gone", tmp_path / "set", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_file_that_changes_under_the_build_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ssl_scale_data_tools.examine import Check
    from ssl_scale_data_tools.raw import RawMember, RawSample
    from ssl_scale_data_tools.shards import Packing, pack_shard

    raw = good(tmp_path / "raw")
    member = RawMember("txt", 99, path="a.txt")
    packing = Packing("s", str(raw), (RawSample("a", (member,)),), Check.NONE, True)
    produced = pack_shard(packing, tmp_path)
    assert produced.counts["samples"] == 0
    assert (
        "must keep its 99 bytes while it is packed, but has 4 now" in produced.errors[0]["reason"]
    )

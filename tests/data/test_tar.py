import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data.tar import Member, read_members
from ssl_scale.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def by_tarfile(path: Path) -> list[Member]:
    with tarfile.open(path) as archive:
        return [
            Member(m.name, m.offset_data, m.size, m.linkname if m.islnk() or m.issym() else None)
            for m in archive
            if m.isreg() or m.islnk() or m.issym()
        ]


def write(path: Path, names: list[str], kind: str, sizes: list[int]) -> Path:
    with tarfile.open(path, "w", format=FORMATS[kind]) as archive:
        for name, size in zip(names, sizes, strict=True):
            about = tarfile.TarInfo(name)
            about.size = size
            archive.addfile(about, io.BytesIO(b"x" * size))
    return path


@settings(deadline=None, max_examples=100)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    entries=st.lists(
        st.tuples(
            st.lists(
                st.text(
                    st.characters(codec="ascii", exclude_characters="/\0"), min_size=1, max_size=70
                ).filter(lambda part: part not in (".", "..")),
                min_size=1,
                max_size=3,
            ).map("/".join),
            st.integers(0, 1600),
        ),
        max_size=6,
    ),
)
def test_members_are_those_that_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory, kind: str, entries: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    names, sizes = [name for name, _ in entries], [size for _, size in entries]
    try:
        write(path, names, kind, sizes)
    except ValueError:  # ustar cannot write every long name
        return
    assert list(read_members(path)) == by_tarfile(path)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_long_names_are_whole(tmp_path: Path, kind: str) -> None:
    folders = "/".join(f"folder-{n:02d}" for n in range(14))
    names = ["a.png", f"{folders}/{'b' * 60}.txt"]
    if kind != "ustar":
        names += [f"{'c' * 300}.txt", "größe/日本.cls"]
    path = write(tmp_path / "a.tar", names, kind, [5, 700, 10, 512][: len(names)])
    assert [member.name for member in read_members(path)] == names
    assert list(read_members(path)) == by_tarfile(path)


@pytest.mark.parametrize("kind_of_tar", ["gnu", "pax"])
def test_links_are_told_and_what_is_no_file_is_passed_over(
    tmp_path: Path, kind_of_tar: str
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=FORMATS[kind_of_tar]) as archive:
        for name, kind, target in [
            ("folder", tarfile.DIRTYPE, ""),
            ("soft", tarfile.SYMTYPE, "t" * 200),
            ("hard", tarfile.LNKTYPE, "real.txt"),
            ("fifo", tarfile.FIFOTYPE, ""),
        ]:
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, target
            archive.addfile(about)
        about = tarfile.TarInfo("real.txt")
        about.size = 3
        archive.addfile(about, io.BytesIO(b"abc"))
    assert list(read_members(path)) == by_tarfile(path)
    assert [(member.name, member.link) for member in read_members(path)] == [
        ("soft", "t" * 200),
        ("hard", "real.txt"),
        ("real.txt", None),
    ]


def with_pax(path: Path, record: bytes) -> Path:
    """An archive whose pax header holds a record."""
    about = tarfile.TarInfo("././@PaxHeader")
    about.type, about.size = tarfile.XHDTYPE, len(record)
    member = tarfile.TarInfo("a.txt")
    header = about.tobuf(tarfile.USTAR_FORMAT) + record.ljust(-(-len(record) // 512) * 512, b"\0")
    path.write_bytes(header + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    return path


@pytest.mark.parametrize("told", ["-5", "1e3", "٣", "9" * 30, "0x10"])
def test_a_size_that_is_no_number_is_refused(tmp_path: Path, told: str) -> None:
    text = f" size={told}\n".encode()
    record = str(len(text) + len(str(len(text) + 2))).encode() + text
    path = with_pax(tmp_path / "a.tar", record)
    with pytest.raises(DataError, match=r"a\.tar: a member's size must be a number, but is '"):
        list(read_members(path))


def test_a_name_that_would_fill_memory_is_refused(tmp_path: Path) -> None:
    path = with_pax(tmp_path / "a.tar", b"0 " + bytes(1 << 20))
    with pytest.raises(DataError, match="at most 1048576 bytes, but the one at byte 512 has 10485"):
        list(read_members(path))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**30), st.binary(min_size=1, max_size=12))
def test_hostile_bytes_are_refused_or_give_members_within_the_file(
    tmp_path_factory: pytest.TempPathFactory, place: int, what: bytes
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write(path, ["é" * 60 + ".txt", "b.txt"], "pax", [700, 10])
    content = bytearray(path.read_bytes()[:5632])
    place %= len(content)
    content[place : place + len(what)] = what
    for block in range(0, len(content) - 511, 512):  # so that not only checksums are tried
        about = content[block : block + 512]
        total = sum(about) - sum(about[148:156]) + 8 * 32
        content[block + 148 : block + 156] = b"%06o\0 " % total
    path.write_bytes(content)
    try:
        members = list(read_members(path))
    except DataError:
        return
    assert all(0 <= m.offset <= m.offset + m.length <= len(content) for m in members)


PROGRAM_FORMATS = ["v7", "oldgnu", "gnu", "ustar", "posix"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")
@pytest.mark.parametrize("kind", PROGRAM_FORMATS)
def test_archives_of_the_program_tar_are_read(tmp_path: Path, kind: str) -> None:
    long = "/".join(["folder" * 6] * 2) if kind in ("v7", "ustar") else "/".join(["folder" * 9] * 5)
    contents = {f"n{n:02d}.{e}": e.encode() * n * 97 for n in range(5) for e in ("cls", "jpg")}
    contents |= {f"{long}/deep.jpg": b"d" * 3000}
    if kind != "v7":
        contents |= {"größe.txt": b"g"}
    raw = tmp_path / "raw"
    for name, content in contents.items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)
    path = tmp_path / "a.tar"
    command = ["tar", "--create", "--file", str(path), f"--format={kind}", "--sort=name", "./"]
    subprocess.run(command, cwd=raw, check=True)
    found = {m.name.removeprefix("./"): m for m in read_members(path)}
    whole = path.read_bytes()
    assert {n: whole[m.offset : m.offset + m.length] for n, m in found.items()} == contents
    assert list(read_members(path)) == by_tarfile(path)


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_a_member_beyond_eight_gigabytes_is_measured(tmp_path: Path, kind: str) -> None:
    size = 9 << 30
    about = tarfile.TarInfo("big.bin")
    about.size = size
    path = tmp_path / "a.tar"
    with path.open("wb") as file:  # the file system keeps the hole, not the bytes
        file.write(about.tobuf(FORMATS[kind]))
        start = file.tell()
        file.seek(start + size)
        file.write(bytes(1024))
    assert list(read_members(path)) == [Member("big.bin", start, size)]


def test_a_pax_size_that_belongs_to_one_member_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("é.txt", "b.txt"):
            about = tarfile.TarInfo(name)
            about.size = 4
            about.pax_headers = {"comment": "no = meaning\nhere"}
            archive.addfile(about, io.BytesIO(b"abcd"))
    assert list(read_members(path)) == by_tarfile(path)


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1024, 1200])
def test_a_shard_that_was_cut_off_names_itself(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "cut.tar", ["a.txt", "b.txt"], "ustar", [10, 600])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cut\.tar: .*was cut off; copy or build the shard again"):
        list(read_members(path))


def test_a_damaged_header_names_its_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.tar", ["a.txt", "b.txt"], "ustar", [10, 10])
    content = bytearray(path.read_bytes())
    content[1024] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bad\.tar: byte 1024 must start a tar header"):
        list(read_members(path))


def test_a_compressed_archive_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:gz") as archive:
        about = tarfile.TarInfo("a.txt")
        about.size = 4000
        archive.addfile(about, io.BytesIO(bytes(range(250)) * 16))
    path.write_bytes(path.read_bytes().ljust(2048, b"\1"))
    with pytest.raises(DataError, match="damaged, compressed or no tar archive"):
        list(read_members(path))


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    about = tarfile.TarInfo("a.bin")
    about.type = tarfile.GNUTYPE_SPARSE
    path = tmp_path / "a.tar"
    path.write_bytes(about.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match="members must be plain files, but one is sparse"):
        list(read_members(path))


def test_a_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    about = tarfile.TarInfo("caf\udce9.txt")
    path.write_bytes(about.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024))
    with pytest.raises(DataError, match=r"must be UTF-8, but one is b'caf\\xe9.txt'"):
        list(read_members(path))

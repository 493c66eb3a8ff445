"""Bad input through the real commands: one clear line, exit code 2 or 3, no traceback.

Each command runs in a process of its own, forked from one that has imported the heavy packages.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssl_scale.recipe.reading import read_recipe
from ssl_scale.train import feed
from tests.data.shards import Sample, digit_samples, write_folder
from tests.distributed import ENVIRONMENT, run_ranks
from tests.train.tiny import PRELOAD

RECIPE = """\
data:
  global_batch: 8
  num_workers: 0
  window: 16
  streams: 4
  fields:
    image: {type: ImageField, extension: png, size_px: 8, channels: 1}
    label: {type: LabelField, extension: cls, num_classes: 10}
    text: {type: TextField, extension: txt, tokenizer: tokenizer, max_tokens: 8}
  sources:
    pictures: {data: pictures, fields: [image, label], feeds: [classify]}
views: {image: {type: ImageView, field: image}}
encoders:
  image:
    {type: VisionTransformer, width: 8, depth: 1, num_heads: 2, patch: 4, size_px: 8, channels: 1}
objectives: {classify: {type: CrossEntropy, encoder: image, label: label, view: image}}
optim: {type: AdamW, lr: 1.0e-3}
train: {steps: 4, zero: 2, save_every: 2}
evaluation:
  pool: {data: pictures}
  test: {data: pictures}
  encoder: image
  labels_per_class: [1]
paths: {pictures: pictures, tokenizer: tokenizer.json}
"""
TOKENIZER = """\
{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "unk_token": "[UNK]",
 "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3}}}
"""
SAMPLES = digit_samples(24)
PROGRESS = re.compile(r"tiny: |\[ *[\d.]+ s\] |index pictures: ")


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines that do not tell of progress."""
        # A bar is drawn over itself; the error starts on a line of its own.
        lines = [line.rpartition("\r")[2] for line in self.err.split("\n")]
        return [line for line in lines if line and not PROGRESS.match(line)]


def run_here(program: str, arguments: list[str], folder: Path) -> tuple[int, bool]:
    """The command as this process; its exit code, and whether it stayed in a process group."""
    from ssl_scale_data_tools.cli import main as ssl_data
    from ssl_scale_launch.cli import main as ssl_launch

    from ssl_scale import dist
    from ssl_scale.cli.main import main as ssl_scale

    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        place = folder / f"{name}-{os.environ['RANK']}"
        os.dup2(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    if os.environ["WORLD_SIZE"] == "1":  # as if nobody had started it
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
            del os.environ[name]
    try:
        commands = {"ssl-scale": ssl_scale, "ssl-data": ssl_data, "ssl-launch": ssl_launch}
        code = commands[program](arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code, dist.is_distributed()


def run(folder: Path, command: str) -> Done:
    """Run a command line in a folder, as one process."""
    [done] = run_together(folder, command, 1)
    return done


def run_together(folder: Path, command: str, processes: int, group: bool = False) -> list[Done]:
    """Run a command line in a folder, as ranks of a process group or before there is one."""
    program, *arguments = command.split()
    with tempfile.TemporaryDirectory() as elsewhere:
        quiet = {"SSL_SCALE_DATA": f"{elsewhere}/none.yaml"}
        left = run_ranks(
            run_here,
            processes,
            program,
            arguments,
            folder,
            preload=PRELOAD,
            environment=quiet,
            group=group,
        )
    assert [is_in_group for _, is_in_group in left] == [False] * processes
    return [
        Done(code, *((folder / f"{name}-{rank}").read_text() for name in ("out", "err")))
        for rank, (code, _) in enumerate(left)
    ]


def write_data(folder: Path, samples: list[tuple[str, Sample]]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder, [samples[:10], samples[10:]])


def alter(folder: Path, key: str = "digit-0013", **members: bytes) -> None:
    """Write the data set anew with one sample altered."""
    write_data(
        folder, [(name, {**held, **members} if name == key else held) for name, held in SAMPLES]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe, data, and the run ``done`` of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "tokenizer.json").write_text(TOKENIZER)
    write_data(folder / "pictures", SAMPLES)
    done = run(folder, "ssl-scale fit tiny.yaml --run-folder done --max-steps 2")
    assert (done.code, done.errors) == (0, []), done.err
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(trained, tmp_path / "work")


def replace(folder: Path, old: str, new: str) -> None:
    path = folder / "tiny.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def nothing(folder: Path) -> None:
    """The command line is at fault."""


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder / "pictures")


def no_shards(folder: Path) -> None:
    no_folder(folder)
    (folder / "pictures").mkdir()


def no_index(folder: Path) -> None:
    (folder / "pictures" / "dataset.json").unlink()


def no_shard(folder: Path) -> None:
    (folder / "pictures" / "shard-000001.tar").unlink()


def empty_shard(folder: Path) -> None:
    (folder / "pictures" / "shard-000001.tar").write_bytes(b"")


def cut_shard(folder: Path) -> None:
    shard = folder / "pictures" / "shard-000001.tar"
    os.truncate(shard, shard.stat().st_size - 4096)


def no_labels(folder: Path) -> None:
    write_data(folder / "pictures", [(key, {"png": held["png"]}) for key, held in SAMPLES])


def no_picture(folder: Path) -> None:
    alter(folder / "pictures", png=b"no picture")


def half_picture(folder: Path) -> None:
    alter(folder / "pictures", png=SAMPLES[13][1]["png"][:60])


def high_label(folder: Path) -> None:
    alter(folder / "pictures", cls=b"17")


def held_out_picture(folder: Path) -> None:
    held_out = "  validation: {held: {data: held_out, fields: [image, label], feeds: [classify]}}\n"
    replace(folder, "views:", f"{held_out}views:")
    replace(folder, "paths: {", "paths: {held_out: held_out, ")
    alter(folder / "held_out", png=b"no picture")


def no_tokenizer(folder: Path) -> None:
    replace(folder, "fields: [image, label]", "fields: [image, label, text]")
    (folder / "tokenizer.json").unlink()


def bad_tokenizer(folder: Path) -> None:
    replace(folder, "fields: [image, label]", "fields: [image, label, text]")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')


def no_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "done" / "checkpoints")


def damaged_checkpoint(folder: Path) -> None:
    [part] = (folder / "done" / "checkpoints").glob("step-*/*.safetensors")
    part.write_bytes(part.read_bytes()[:-1])


FIT = "ssl-scale fit tiny.yaml --run-folder new"
CHECK = "ssl-scale check tiny.yaml"
# What breaks, the command, words that its error must have: what it must be, what it is, where.
CASES: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "data: no folder": (no_folder, FIT, ("/pictures: a data set must be a folder", "ssl-data")),
    "data: no folder, checked": (no_folder, CHECK, ("data.sources.pictures: ", "must be a folder")),
    "data: no shards": (no_shards, FIT, ("/pictures: ", "but it has no shards at all", "ssl-data")),
    "data: no index": (no_index, FIT, ("must hold dataset.json", "run `ssl-data index")),
    "data: a shard is missing": (no_shard, FIT, ("/shard-000001.tar: ", "missing; put it back")),
    "data: a shard is empty": (empty_shard, FIT, ("/shard-000001.tar: must be", "but is 0")),
    "data: an empty shard, indexed": (
        empty_shard,
        "ssl-data index pictures --workers 0",
        ("pictures/shard-000001.tar: a tar archive must end", "build the shard again"),
    ),
    "data: a shard was cut": (cut_shard, FIT, ("/shard-000001.tar: must be", "bytes as when it")),
    "data: a field is missing": (
        no_labels,
        FIT,
        ("'pictures' must have field 'label' (.cls)", "hold only .png", "leave the field out"),
    ),
    "data: a label is too high": (
        high_label,
        FIT,
        ("shard-000001.tar: sample 'digit-0013': field 'label' must be", "[0, 10)", "is '17'"),
    ),
    "data: no picture": (
        no_picture,
        FIT,
        ("shard-000001.tar: sample 'digit-0013': field 'image' must be a picture", "bad_samples"),
    ),
    "data: no picture, met by a worker": (
        no_picture,
        f"{FIT} --set data.num_workers=1",
        ("sample 'digit-0013': field 'image' must be a picture", "bad_samples"),
    ),
    "data: half a picture": (half_picture, FIT, ("'digit-0013'", "must be a picture, but does")),
    "data: no picture, held out": (
        held_out_picture,
        FIT,
        ("source 'held'", "sample 'digit-0013': field 'image' must be a picture"),
    ),
    "data: too many bad samples": (
        lambda folder: write_data(
            folder / "pictures", [(key, {**held, "png": b"-"}) for key, held in SAMPLES]
        ),
        f"{FIT} --set data.bad_samples=0.1",
        ("neighbours must decode, but none does", "field 'image'", "mend the data"),
    ),
    "tokenizer: none": (
        no_tokenizer,
        FIT,
        ("/tokenizer.json: must be a tokenizer's file, but there is none", "--data"),
    ),
    "tokenizer: none, checked": (no_tokenizer, CHECK, ("/tokenizer.json: must be a tokenizer",)),
    "tokenizer: something else": (bad_tokenizer, FIT, ("must be a tokenizer", "does not load")),
    "settings: batch and accumulate": (
        nothing,
        f"{FIT} --set data.global_batch=9 --set train.accumulate=2",
        ("train.accumulate: must divide data.global_batch, 9, but is 2",),
    ),
    "settings: bf16 without masters": (
        nothing,
        f"{FIT} --set train.zero=0 --set train.precision=bf16",
        ("train.zero: must be 1, 2 or 3 with train.precision bf16", "but is 0"),
    ),
    "settings: parts do not fit": (
        nothing,
        f"{FIT} --set encoders.image.patch=3",
        ("encoders.image", "must", "3"),
    ),
    "run: its folder is a file": (
        nothing,
        "ssl-scale fit tiny.yaml --run-folder tiny.yaml/new",
        ("tiny.yaml/new: the run's folder must be one that can be written", "--run-folder"),
    ),
    "run: damaged environment": (
        lambda folder: (folder / "done" / "environment.json").write_text("{"),
        "ssl-scale fit done",
        ("done/environment.json must hold", "is damaged", "move it away"),
    ),
    "recipe: unknown": (
        nothing,
        "ssl-scale fit dmo",
        ("recipe must be a YAML file", "but is 'dmo'; did you mean 'demo'?"),
    ),
    "recipe: a folder that is no run": (nothing, "ssl-scale export pictures out", ("'pictures'",)),
    "checkpoint: of another recipe": (
        nothing,
        "ssl-scale fit done --set encoders.image.width=16",
        ("done/checkpoints/step-000000002: must be a checkpoint of this recipe", "--no-resume"),
    ),
    "checkpoint: of another recipe, evaluated": (
        nothing,
        "ssl-scale evaluate done --set encoders.image.width=16",
        ("step-000000002 must be a checkpoint of this recipe", "leave out overrides"),
    ),
    "checkpoint: none to export": (
        no_checkpoint,
        "ssl-scale export done out",
        ("done must have a checkpoint, but has not: done/checkpoints has none", "`ssl-scale fit"),
    ),
    "checkpoint: none to evaluate": (
        no_checkpoint,
        "ssl-scale evaluate done",
        ("done must have a checkpoint, but has not",),
    ),
    "checkpoint: damaged": (damaged_checkpoint, "ssl-scale export done out", ("safetensors",)),
    "checkpoint: of a step that was not saved": (
        nothing,
        "ssl-scale export done out --step 7",
        ("step must be that of a checkpoint", "[2]", "but is 7"),
    ),
    "export: something is there": (nothing, "ssl-scale export done pictures", ("pictures",)),
    "report: no run": (nothing, "ssl-scale report pictures", ("pictures",)),
    "report: no folder": (nothing, "ssl-scale report gone", ("gone",)),
    "evaluate: no picture": (
        no_picture,
        "ssl-scale evaluate done --data pictures=pictures",
        ("sample 'digit-0013': field 'image' must be a picture", "mend or remove"),
    ),
    "evaluate: a teacher that is none": (
        nothing,
        "ssl-scale evaluate done --teacher ema",
        ("teacher must be one of the run's, []", "'ema'"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_in_one_line(case: str, folder: Path) -> None:
    spoil, command, words = CASES[case]
    spoil(folder)
    done = run(folder, command)
    assert done.code == 2, done.err
    assert [line[:7] for line in done.errors] == ["error: "], done.err
    for word in words:
        assert word in done.errors[0]


def test_a_recipe_with_three_faults_reports_three_each_with_its_line(folder: Path) -> None:
    replace(folder, "num_heads: 2", "num_head: 2")
    replace(folder, "view: image}}", "view: imag}}")
    replace(folder, "steps: 4", "steps: four")
    lines = [
        number
        for number, line in enumerate((folder / "tiny.yaml").read_text().splitlines(), start=1)
        if re.search("num_head:|imag}|four", line)
    ]
    for command in (CHECK, FIT):
        done = run(folder, command)
        assert done.code == 2
        title, *faults = done.errors
        assert title == "error: recipe tiny.yaml has 3 faults"
        assert [int(fault.split(":")[1]) for fault in faults] == lines
        assert "did you mean 'num_heads'?" in faults[0]
        assert "views has no 'imag'; did you mean 'image'?" in faults[1]
        assert "train.steps: must be" in faults[2] and "'four'" in faults[2]


def test_data_without_a_path_is_another_exit_code(folder: Path) -> None:
    replace(folder, "paths: {pictures: pictures, ", "paths: {")
    for command in (CHECK, FIT):
        done = run(folder, command)
        assert done.code == 3
        assert "role 'pictures' has no path" in done.err and "--data pictures=PATH" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("spoil", "command"),
    [(no_folder, CHECK), (no_picture, FIT), (no_checkpoint, "ssl-scale export done out")],
)
def test_debug_shows_the_traceback(
    spoil: Callable[[Path], None], command: str, folder: Path
) -> None:
    spoil(folder)
    done = run(folder, f"{command} --debug")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.errors[-1].startswith("error: ")


def test_a_build_that_decodes_names_the_file(folder: Path) -> None:
    raw = folder / "raw"
    raw.mkdir()
    for number, content in enumerate((SAMPLES[0][1]["png"], SAMPLES[1][1]["png"][:60])):
        (raw / f"scan-{number}.png").write_bytes(content)
    done = run(folder, "ssl-data build raw shards --check decode --workers 0")
    assert done.code == 2
    [error] = [line for line in done.errors if line.startswith("error: ")]
    assert "scan-1.png" in error and "must be an image that decodes" in error
    assert "Traceback" not in done.err


def test_tolerated_bad_samples_are_logged_also_held_out_ones(folder: Path) -> None:
    held_out_picture(folder)
    alter(folder / "pictures", "digit-0003", png=b"no picture")
    tolerant = "--set data.bad_samples=0.01 --set train.validate_every=2"
    done = run(folder, f"{FIT} {tolerant}")
    assert (done.code, done.errors) == (0, []), done.err
    [log] = (folder / "new" / "quarantine").iterdir()
    text = log.read_text()
    assert text.count('"digit-0013"') == 1  # although two passes met it
    assert '"digit-0003"' in text


def spoil_a_sample_of_rank_1(folder: Path) -> None:
    """Rank 0, which has the terminal, must hear of it."""
    source = feed.open_sources(read_recipe(folder / "tiny.yaml")).training["pictures"]
    alter(folder / "pictures", source.key(source.locate(11)), png=b"no picture")


@pytest.mark.dist
@pytest.mark.parametrize("case", ["training", "validation", "records", "settings"])
def test_what_one_process_meets_all_tell(case: str, folder: Path) -> None:
    command = FIT
    if case == "training":
        spoil_a_sample_of_rank_1(folder)
    elif case == "validation":
        held_out_picture(folder)  # in an odd place
    elif case == "records":
        (folder / "done" / "environment.json").write_text("{")  # only rank 0 reads it
        command = "ssl-scale fit done"
    else:
        command = f"{FIT} --set data.global_batch=9"
    one, other = run_together(folder, command, 2, group=case != "settings")
    assert (one.code, other.code) == (2, 2)
    assert [line[:7] for line in one.errors] == ["error: "], one.err
    assert one.errors == other.errors
    if case == "settings":
        assert "divisible by processes x train.accumulate = 2 x 1, but is 9" in one.errors[0]


@pytest.mark.parametrize("place", ["tiny.yaml", "tiny.yaml/new"])
def test_the_launcher_needs_a_folder_for_its_logs(place: str, folder: Path) -> None:
    done = run(folder, f"ssl-launch local --processes 2 tiny.yaml --run-folder {place}")
    assert done.code == 2
    [error] = done.errors
    assert error.startswith(f"error: {place}/logs: must be a folder that can be written")


@pytest.mark.slow
@pytest.mark.dist
def test_the_launcher_says_it_once_and_ends(folder: Path) -> None:
    spoil_a_sample_of_rank_1(folder)
    done = subprocess.run(
        [Path(sys.executable).with_name("ssl-launch"), "local", "--processes", "2", "tiny.yaml"],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=240,
    )
    told = Done(done.returncode, done.stdout, done.stderr)
    assert told.code == 2
    assert [line[:7] for line in told.errors] == ["error: "], told.err
    assert "field 'image' must be a picture" in told.errors[0]
    for rank in range(2):
        log = (folder / "runs" / "tiny" / "logs" / f"rank-{rank}.log").read_text()
        assert log.count("error: ") == 1 and "Traceback" not in log

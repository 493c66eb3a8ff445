import html.parser
import json
import re

import pytest

from ssl_scale.errors import SslScaleError
from ssl_scale.report.gallery import Gallery
from ssl_scale.report.page import write_report
from tests.report.runs import EVALUATION, make_gallery, write_run

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'$x^2$"


class Reader(html.parser.HTMLParser):
    """Collects tags, what they ask for, and the visible text."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "poster"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))

    def handle_data(self, data):
        self.text.append(data)


def _read(path):
    reader = Reader()
    page = path.read_text(encoding="utf-8")
    reader.feed(page)
    return page, reader


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "first-light")
    make_gallery().save(folder)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    return folder


@pytest.fixture(scope="module")
def page(run_folder):
    return _read(write_report(run_folder))


def test_the_page_asks_for_nothing_and_runs_nothing(page):
    text, reader = page
    assert not {"script", "iframe", "object", "embed", "link", "base"} & set(reader.tags)
    assert reader.handlers == []
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in reader.addresses)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "default-src 'none'" in text


def test_the_summary_counts_steps_attempts_and_what_was_done_twice(page):
    _, reader = page
    shown = " ".join(" ".join(reader.text).split())
    assert "complete Summary" in shown
    assert "400 of 400" in shown
    # Attempt 1 got to step 236 and attempt 2 continued from 200.
    assert re.search(r"\b1 20\S+ \S+ \S+ 1 0 236 36\b", shown)
    assert re.search(r"\b2 20\S+ \S+ \S+ 1 200 400 0\b", shown)


def test_every_section_that_has_content_is_there_and_linked(page):
    text, reader = page
    wanted = ["summary", "evaluation", "losses", "measures", "machine", "pictures", "details"]
    assert re.findall(r'<section id="(\w+)">', text) == wanted
    assert [address for address in reader.addresses if address.startswith("#") and
            address[1:] in wanted] == [f"#{name}" for name in wanted]  # fmt: skip


def test_pictures_are_in_the_page_itself(page):
    _, reader = page
    # 3 queries with 5 neighbours each, and 6 reconstructions of 3 pictures each.
    assert sum(str(address).startswith("data:image") for address in reader.addresses) == 36


def test_the_best_figure_of_each_column_is_marked(page):
    text, _ = page
    best = re.findall(r'class="number best">([\d.]+)', text)
    assert best == ["0.910", "0.950", "2.310"]


def test_passwords_in_the_recipe_are_not_shown(page):
    text, _ = page
    assert "hunter2" not in text
    assert "s3://***@host/bucket" in text


def test_names_and_captions_are_escaped_everywhere(tmp_path):
    folder = write_run(tmp_path / "run", name=ATTACK, objective=ATTACK)
    make_gallery(name=ATTACK).save(folder)
    hostile = json.loads(json.dumps(EVALUATION))
    hostile["rows"][0]["label"] = hostile["columns"][0]["title"] = hostile["notes"][0] = ATTACK
    hostile["columns"][1]["group"] = ATTACK
    (folder / "evaluation.json").write_text(json.dumps(hostile))
    text, reader = _read(write_report(folder))
    assert "script" not in reader.tags
    assert reader.handlers == []
    assert "<script" not in text.lower()
    assert "x" not in reader.addresses
    assert "".join(reader.text).count("<script>alert(1)</script>") >= 8


def test_class_names_are_escaped_inside_the_map(tmp_path):
    folder = write_run(tmp_path / "run")
    gallery = make_gallery()
    Gallery(
        points=gallery.points, point_labels=gallery.point_labels, classes=(ATTACK, "b")
    ).save(folder)  # fmt: skip
    text, reader = _read(write_report(folder))
    assert "script" not in reader.tags and "<script" not in text


def test_a_run_with_nothing_but_one_line_gets_a_page(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "attempt": 1, "time": 1.0, "loss": null}\n'
    )
    text, reader = _read(write_report(tmp_path, tmp_path / "elsewhere" / "page.html"))
    assert "not complete: step 1" in text
    assert "pictures" not in re.findall(r'<section id="(\w+)">', text)
    assert "script" not in reader.tags


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(SslScaleError, match="must be the folder of a run .* no metrics.jsonl"):
        write_report(tmp_path)


def test_a_damaged_evaluation_is_named(tmp_path):
    write_run(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(SslScaleError, match="evaluation.json must be a table .* evaluate again"):
        write_report(tmp_path)


def test_a_long_run_stays_a_small_page(tmp_path):
    line = '{{"kind": "train", "step": {0}, "attempt": 1, "time": {0}.0, "loss": 0.{0}}}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(line.format(n) for n in range(1, 30_000)))
    assert write_report(tmp_path).stat().st_size < 200_000


def test_the_same_run_gives_the_same_page(run_folder, page):
    assert write_report(run_folder).read_text(encoding="utf-8") == page[0]

"""The page that the study writes from its figures."""

from pathlib import Path

from tests.torture.small_results import read_finding, record, write_page

FINDING = """\
# The method of ../vision/byol.yaml.
# Finding: it ends low, since
# 600 steps are few.
extends: nothing
# Finding: not this.
"""


def entry(recipe: str, **more: object) -> dict[str, object]:
    return {
        "recipe": recipe,
        "data": "cifar10",
        "figures": {"k-NN@100": {"mean": 0.361, "spread": 0.0049}, "retrieval/mean_rank": {}},
        "baselines": {"untrained encoder": {"k-NN@100": {"mean": 0.248, "spread": 0.003}}},
        "samples": 76800,
        "seconds": 181,
        "commit": "abc",
        **more,
    }


def test_a_finding_is_what_a_recipes_head_tells(tmp_path: Path) -> None:
    (tmp_path / "told.yaml").write_text(FINDING)
    (tmp_path / "silent.yaml").write_text(FINDING.replace("Finding", "Note"))
    assert read_finding(str(tmp_path / "told.yaml")) == "it ends low, since 600 steps are few."
    assert read_finding(str(tmp_path / "silent.yaml")) == ""


def test_the_page_shows_baselines_methods_teachers_and_findings(tmp_path: Path) -> None:
    (tmp_path / "told.yaml").write_text(FINDING)
    results, page = tmp_path / "small.yaml", tmp_path / "page.md"
    told = str(tmp_path / "told.yaml")
    record("vision/b", entry(told, teacher={"k-NN@100": {"mean": 0.4}}), results)
    record("vision/a", entry("small/simclr"), results)
    record("vision/b", entry(told, teacher={"k-NN@100": {"mean": 0.5}}), results)
    write_page(record("vision/a", entry("small/simclr"), results), page)
    lines = page.read_text().splitlines()
    start = lines.index("| recipe | k-NN@100 | samples | seconds | commit |")
    assert lines[start + 2 :] == [
        "| untrained encoder | 24.8 ± 0.3 |  |  |  |",
        "| `small/simclr` | 36.1 ± 0.5 | 76,800 | 181 | abc |",
        f"| `{told}` | 36.1 ± 0.5 | 76,800 | 181 | abc |",
        f"| `{told}`, teacher | 50.0 |  |  |  |",
        "",
        f"- `{told}`: it ends low, since 600 steps are few.",
    ]

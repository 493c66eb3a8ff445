"""One self-contained HTML file about a run: no script, no request, everything escaped.

Names and captions come from recipes and data, so the template escapes all text; only the charts'
SVG, which we draw ourselves and matplotlib escapes, enters as it is. The page carries a content
security policy that forbids scripts and the network, should anything slip through.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ssl_scale.errors import SslScaleError
from ssl_scale.redact import redact, redact_text
from ssl_scale.report.charts import map_chart
from ssl_scale.report.curves import Curves, draw_curves
from ssl_scale.report.gallery import Gallery, to_data_uri
from ssl_scale.report.pictures import update_gallery
from ssl_scale.report.tables import Table, read_evaluation, summarize
from ssl_scale.train.environment import compare_environments, read_environments, write_atomically
from ssl_scale.train.records import METRICS_NAME, read_metrics, read_resumes

REPORT_NAME = "report.html"


def write_report(run_folder: Path, output: Path | None = None) -> Path:
    """Write the page from what lies in the run's folder.

    Args:
        run_folder: metrics.jsonl must be there; the rest is shown if it is: recipe.yaml,
            environment.json, evaluation.json, checkpoints.
        output: the page; ``report.html`` in the run's folder unless told.

    Returns:
        The path of the page.
    """
    run_folder = Path(run_folder)
    if not (run_folder / METRICS_NAME).exists():
        raise SslScaleError(
            f"{run_folder} must be the folder of a run that was started, but has no {METRICS_NAME}"
        )
    path = Path(output) if output else run_folder / REPORT_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    try:
        update_gallery(run_folder)
    except SslScaleError as error:  # the curves are worth a page without the pictures
        problems.append(f"The pictures could not be computed: {error}")
    write_atomically(path, render_report(run_folder, problems))
    return path


def render_report(run_folder: Path, problems: Sequence[str] = ()) -> str:
    """The page's HTML.

    Args:
        run_folder: where everything lies.
        problems: what a reader must know is missing.
    """
    metrics = run_folder / METRICS_NAME
    recipe = _read_recipe(run_folder)
    lines = read_metrics(metrics)
    environments = read_environments(run_folder)
    summary = summarize(
        str(recipe.get("name", "")),
        lines,
        read_metrics(metrics, with_void=True),
        read_resumes(metrics),
        environments,
        _num_steps(recipe),
        (run_folder / "COMPLETED").exists(),
    )
    curves = draw_curves(lines, summary.resumes)
    gallery = Gallery.read(run_folder)
    evaluation = read_evaluation(run_folder)
    template = _environment().from_string(_resource("page.html"))
    return template.render(
        # Our own stylesheet; escaping would break its quotes.
        css=Markup(_resource("page.css")),
        name=run_folder.resolve().name,
        contents=_contents(curves, gallery, evaluation),
        summary=summary,
        warnings=[*_warnings(environments), *problems],
        evaluation=evaluation,
        curves=curves,
        gallery=_show_gallery(gallery),
        environments=[_show_environment(entry) for entry in environments],
        recipe=yaml.safe_dump(redact(recipe), sort_keys=False, allow_unicode=True)
        if recipe
        else "",
    )


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["drawn"] = Markup
    return environment


def _resource(name: str) -> str:
    return resources.files("ssl_scale.report").joinpath(name).read_text(encoding="utf-8")


def _read_recipe(run_folder: Path) -> dict[str, Any]:
    path = run_folder / "recipe.yaml"
    if not path.exists():
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SslScaleError(f"{path} must be YAML, but is not: {error}") from error
    return recipe if isinstance(recipe, dict) else {}


def _show_recipe(recipe: Mapping[str, Any]) -> str:
    return (
        str(yaml.safe_dump(redact(recipe), sort_keys=False, allow_unicode=True)) if recipe else ""
    )


def _num_steps(recipe: Mapping[str, Any]) -> int | None:
    train = recipe.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    return steps if isinstance(steps, int) else None


def _contents(
    curves: Curves, gallery: Gallery | None, evaluation: Table | None
) -> list[tuple[str, str]]:
    sections: list[tuple[str, str, object]] = [
        ("summary", "Summary", True),
        ("evaluation", "Evaluation", evaluation),
        ("losses", "Losses", curves.losses),
        ("measures", "Other measures", curves.measures),
        ("machine", "Throughput and data", curves.machine or curves.mixture),
        ("pictures", "Pictures", gallery),
        ("details", "Environment and recipe", True),
    ]
    return [(id, title) for id, title, shown in sections if shown]


def _warnings(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    pairs = zip(environments, environments[1:], strict=False)
    return [
        f"Attempt {now['attempt']}: {text}."
        for before, now in pairs
        for text in compare_environments(before, now)
    ]


def _show_environment(entry: Mapping[str, Any]) -> dict[str, Any]:
    gpus = len(entry.get("gpus", ()))
    commit = str(entry.get("commit") or "no commit")[:12]
    return {
        "number": entry["attempt"],
        "headline": f"{entry.get('host', '')}, {gpus} GPUs, {commit}",
        "text": redact_text(json.dumps(redact(entry), indent=1)),
    }


def _show_gallery(gallery: Gallery | None) -> dict[str, Any] | None:
    if gallery is None:
        return None
    return {
        "step": gallery.step,
        "neighbours": [_show_neighbours(gallery, place) for place in range(len(gallery.queries))],
        "reconstructions": [
            [("picture", to_data_uri(a)), ("shown", to_data_uri(b)), ("predicted", to_data_uri(c))]
            for a, b, c in zip(gallery.originals, gallery.masked, gallery.predictions, strict=True)
        ],
        "map": map_chart(
            "Features of held-out pictures",
            gallery.points,
            gallery.point_labels,
            gallery.classes,
        )
        if len(gallery.points)
        else None,
    }


def _show_neighbours(gallery: Gallery, place: int) -> dict[str, Any]:
    label = gallery.query_labels[place]
    return {
        "query": {
            "uri": to_data_uri(gallery.queries[place]),
            "name": gallery.query_names[place],
        },
        "found": [
            {
                "uri": to_data_uri(picture),
                "name": name,
                "similarity": f"{similarity:.2f}",
                "is_same": label >= 0 and label == found,
            }
            for picture, name, similarity, found in zip(
                gallery.neighbours[place],
                gallery.neighbour_names[place],
                gallery.similarities[place],
                gallery.neighbour_labels[place],
                strict=True,
            )
        ],
    }

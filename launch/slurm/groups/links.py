"""Runs that start from one another: links of a graph, in an order in which they can run.

A chain is the plainest graph: each link waits for the one before. ``chain.json`` in the folder that
holds the links' own folders keeps the graph.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.record import write_json

NAME = "chain.json"
# What the run of the link before is called by the recipes of a chain.
PREVIOUS = "previous"
LONGEST_NAME = 64


@dataclass(frozen=True)
class Link:
    """One run of a graph.

    Args:
        name: of the link, and of its run's folder.
        recipe: a recipe's name or file.
        after: names of the links that must have succeeded.
        bindings: role -> name of the link whose run it means, for the roles that the recipe names.
    """

    name: str
    recipe: str
    after: tuple[str, ...]
    bindings: Mapping[str, str]


def chain_of(recipes: Sequence[str]) -> list[Link]:
    """Links that run one after another.

    Every earlier link may be meant by its recipe's name, the one before also as ``previous``; of
    two that are named alike the later one is meant.
    """
    links: list[Link] = []
    known: dict[str, str] = {}
    for number, recipe in enumerate(recipes, 1):
        own = Path(recipe).stem
        before = (links[-1].name,) if links else ()
        bindings = {**known, **({PREVIOUS: before[0]} if before else {})}
        links.append(Link(f"{number}-{own}", recipe, before, bindings))
        known[own] = links[-1].name
    return links


def name_of_chain(links: Sequence[Link]) -> str:
    """What a chain is called unless told: its recipes' names, or the first one's."""
    names = [link.name.partition("-")[2] for link in links]
    joined = "-".join(names)
    return joined if len(joined) <= LONGEST_NAME else names[0]


def write_links(folder: Path, links: Sequence[Link]) -> None:
    """Keep a graph.

    Raises:
        SslScaleError: a link waits for, or starts from, one that does not come before it.
    """
    check_order(links)
    write_json(folder / NAME, {"links": [asdict(link) for link in links]})


def read_links(folder: Path) -> list[Link]:
    """The graph of a folder; empty if it holds none.

    Raises:
        SslScaleError: the file is damaged.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text())["links"]
        links = [
            Link(
                str(link["name"]), str(link["recipe"]), tuple(link["after"]), dict(link["bindings"])
            )
            for link in found
        ]
        check_order(links)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, SslScaleError) as error:
        raise SslScaleError(
            f"{path}: must hold the links of a chain, but is damaged ({error}); the links' own "
            "folders can be used one by one"
        ) from error
    return links


def check_order(links: Sequence[Link]) -> None:
    """Refuse links that cannot run in their order, and names that are not those of one folder."""
    known: set[str] = set()
    for link in links:
        if link.name in ("", ".", "..", *known) or "/" in link.name:
            raise SslScaleError(
                f"links must have different names, each that of one folder, but one is "
                f"{link.name!r}"
            )
        for other in (*link.after, *link.bindings.values()):
            if other not in known:
                raise SslScaleError(
                    f"{link.name} must come after the links it needs, {sorted(known)}, but needs "
                    f"{other!r}"
                )
        known.add(link.name)

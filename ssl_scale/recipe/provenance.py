"""The ``system`` section: which published system a recipe implements, and what proves it."""

from dataclasses import dataclass

from ssl_scale.part import Count


@dataclass(frozen=True)
class Provenance:
    """What a recipe stands for; nothing of it changes a run.

    Args:
        name: short name of the system.
        title: of the paper.
        paper: where it is to be found, such as ``arXiv 2002.05709``.
        rows: numbers of the systems in the catalogue that it implements or serves.
        data: what the paper trained on.
        reported: the paper's own figure, with its metric.
        proof: the test that holds the recipe, ``path::name``.
    """

    name: str
    title: str
    paper: str
    rows: tuple[Count, ...] = ()
    data: str = ""
    reported: str = ""
    proof: str = ""

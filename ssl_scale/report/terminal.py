"""The evaluation table as aligned text."""

from ssl_scale.report.tables import Cell, Table

_GAP = "  "


def draw_table(table: Table) -> str:
    """Lines of equal columns, numbers to the right; the best of a column bears a star."""
    cells = [[_show(cell) for cell in row.cells] for row in table.rows]
    widths = [
        max(len(title), *(len(row[place]) for row in cells))
        for place, title in enumerate(table.columns)
    ]
    _widen(widths, table.groups)
    first = max(len(row.label) for row in table.rows)
    lines = [
        _line("", _groups(widths, table.groups), first),
        _line("", [t.rjust(w) for t, w in zip(table.columns, widths, strict=True)], first),
    ]
    for row, texts in zip(table.rows, cells, strict=True):
        aligned = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
        lines.append(_line(row.label, aligned, first))
    return "\n".join([*lines, "", *table.notes]) + "\n"


def _show(cell: Cell) -> str:
    spread = f" ± {cell.spread}" if cell.spread else ""
    # The star keeps its place where there is none, so that figures stay aligned.
    return f"{cell.text}{spread}{'*' if cell.is_best else ' '}" if cell.text else "- "


def _widen(widths: list[int], groups: tuple[tuple[str, int], ...]) -> None:
    place = 0
    for title, count in groups:
        width = sum(widths[place : place + count]) + len(_GAP) * (count - 1)
        widths[place] += max(0, len(title) - width)
        place += count


def _groups(widths: list[int], groups: tuple[tuple[str, int], ...]) -> list[str]:
    shown, place = [], 0
    for title, count in groups:
        width = sum(widths[place : place + count]) + len(_GAP) * (count - 1)
        shown.append(title.rjust(width))
        place += count
    return shown


def _line(label: str, cells: list[str], first: int) -> str:
    return _GAP.join([label.ljust(first), *cells]).rstrip()

"""Rows of text as a table that fits a terminal."""

from collections.abc import Sequence

GAP = 2
LEAST = 12


def table(rows: Sequence[Sequence[str]], right: Sequence[int], width: int | None) -> list[str]:
    """The lines of a table.

    Args:
        rows: equally many cells each.
        right: the columns that hold figures.
        width: columns of the terminal; None where nothing needs to fit. The last cell of a row is
            cut at its end, and if that is not enough the first one at its beginning.
    """
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if width is not None:
        over = sum(widths) + GAP * (len(widths) - 1) - width
        for column in (len(widths) - 1, 0):
            cut = min(max(0, over), max(0, widths[column] - LEAST))
            widths[column], over = widths[column] - cut, over - cut
    return [_line(row, widths, right) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = []
    for column, (cell, room) in enumerate(zip(row, widths, strict=True)):
        if len(cell) > room:
            is_first = column == 0
            cell = f"…{cell[1 - room :]}" if is_first else f"{cell[: room - 1]}…"
        cells.append(cell.rjust(room) if column in right else cell.ljust(room))
    return (" " * GAP).join(cells).rstrip()

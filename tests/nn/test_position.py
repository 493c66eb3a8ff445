"""Positions against their papers' formulas, place by place."""

import cmath
import math

import pytest
import torch

from ssl_scale.nn.position import (
    LearnedPosition,
    SinCosPosition,
    rotary_angles,
    rotation,
    sincos_table,
)


def test_one_dimensional_table_is_the_formula() -> None:
    width = 12
    table = sincos_table((7,), width)
    for place in range(7):
        for i in range(width // 2):
            angle = place / 10000 ** (2 * i / width)
            assert table[place, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, width // 2 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_two_dimensional_table_is_column_then_row() -> None:
    width, rows, columns = 16, 3, 5
    table = sincos_table((rows, columns), width)
    half = width // 2
    for row in range(rows):
        for column in range(columns):
            place = table[row * columns + column]
            torch.testing.assert_close(place[:half], sincos_table((columns,), half)[column])
            torch.testing.assert_close(place[half:], sincos_table((rows,), half)[row])


def test_sincos_refuses_a_width_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of 4, but is 6"):
        sincos_table((2, 2), 6)


def test_sincos_position_adds_the_table() -> None:
    tokens = torch.randn(2, 6, 8)
    added = SinCosPosition()(tokens, (2, 3))
    torch.testing.assert_close(added, tokens + sincos_table((2, 3), 8))


def naive_rotary(x: torch.Tensor, coordinates: list[float], base: float) -> list[float]:
    """Pairs (i, i + half) as complex numbers, multiplied by exp(i * place * frequency)."""
    half = len(x) // 2
    per_axis = half // len(coordinates)
    out = [0.0] * len(x)
    for i in range(half):
        axis, step = divmod(i, per_axis)
        turn = cmath.exp(1j * coordinates[axis] * base ** (-step / per_axis))
        turned = complex(x[i], x[i + half]) * turn
        out[i], out[i + half] = turned.real, turned.imag
    return out


@pytest.mark.parametrize(("grid", "base"), [((9,), 10000.0), ((2, 4), 100.0)])
def test_rotation_is_complex_multiplication(grid: tuple[int, ...], base: float) -> None:
    places = torch.tensor([3, 0, 7, -1])
    x = torch.randn(4, 2, 8)
    turned = rotation(rotary_angles(grid, 8), places)(x)
    for token, place in enumerate(places.tolist()):
        if place < 0:
            torch.testing.assert_close(turned[token], x[token])
            continue
        coordinates = (
            [float(place)] if len(grid) == 1 else [float(c) for c in divmod(place, grid[1])]
        )
        for head in range(2):
            expected = naive_rotary(x[token, head], coordinates, base)
            torch.testing.assert_close(turned[token, head], torch.tensor(expected))


def test_rotated_products_depend_on_distance_only() -> None:
    angles = rotary_angles((20,), 8)
    query, key = torch.randn(8), torch.randn(8)

    def product(i: int, j: int) -> float:
        turned = rotation(angles, torch.tensor([i, j]))(torch.stack([query, key])[:, None])
        return float(turned[0, 0] @ turned[1, 0])

    assert product(2, 5) == pytest.approx(product(12, 15), abs=1e-5)
    assert product(2, 5) != pytest.approx(product(2, 6), abs=1e-3)


def resize_matrix(old: int, new: int) -> torch.Tensor:
    """Cubic convolution (Keys 1981, a = -0.75), edges repeated, pixel centres aligned."""
    matrix, a = torch.zeros(new, old), -0.75
    for row in range(new):
        source = (row + 0.5) * old / new - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            d = abs(source - tap)
            inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
            outer = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[row, min(max(tap, 0), old - 1)] += inner if d <= 1 else outer
    return matrix


def test_learned_positions_are_resized_to_another_grid() -> None:
    position = LearnedPosition((4, 5), 6)
    table = position.table.view(4, 5, 6)
    expected = torch.einsum(
        "ri,cj,ijw->rcw", resize_matrix(4, 8), resize_matrix(5, 3), table
    ).flatten(0, 1)
    torch.testing.assert_close(position(torch.zeros(1, 24, 6), (8, 3))[0], expected)
    same = position(torch.zeros(1, 20, 6), (4, 5))[0]
    torch.testing.assert_close(same, position.table, atol=0, rtol=0)


def test_a_text_longer_than_the_table_is_refused() -> None:
    position = LearnedPosition((4,), 6)
    torch.testing.assert_close(position(torch.zeros(1, 3, 6), (3,))[0], position.table[:3])
    with pytest.raises(ValueError, match="length must be at most 4 tokens, but is 5"):
        position(torch.zeros(1, 5, 6), (5,))

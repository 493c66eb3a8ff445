"""Conditions on columns, such as ``not exact.is_duplicate and 64 <= width < 4096``.

They are written like Python and read by its parser, but never run by Python: what is on the list
below becomes calls of pyarrow's compute functions, everything else is a fault. A condition on a
value that is missing is itself missing, which counts as not met.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssl_scale.errors import DataError

from .language import HELP

LONGEST = 10_000
_DEEPEST = 50

Value = Any  # pa.Array | pa.Scalar, of which pyarrow gives no types

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Value, Value], Value]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: lambda left, right: pc.divide(pc.cast(left, pa.float64()), right),
}
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    "abs": (1, pc.abs),
    "length": (1, pc.utf8_length),
    "lower": (1, pc.utf8_lower),
    "contains": (2, lambda text, part: pc.match_substring(text, part.as_py())),
    "starts_with": (2, lambda text, part: pc.starts_with(text, part.as_py())),
    "ends_with": (2, lambda text, part: pc.ends_with(text, part.as_py())),
    # RE2: no pattern takes more than linear time.
    "matches": (2, lambda text, part: pc.match_substring_regex(text, part.as_py())),
    "coalesce": (2, pc.coalesce),
}
_SEARCHES = ("contains", "starts_with", "ends_with", "matches")


@dataclass(frozen=True)
class Condition:
    """A part of an expression that all kept samples meet.

    Args:
        text: as people wrote it, tidied.
        node: as it was parsed.
    """

    text: str
    node: ast.expr

    def check(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows meet it: true, false, or null where a value is missing.

        Raises:
            DataError: values are of types that cannot be compared.
        """
        try:
            value = _evaluate(self.node, batch)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.text!r} must fit the columns' types, but: {reason}") from error
        if not pa.types.is_boolean(value.type):
            raise DataError(f"{self.text!r} must be true or false, but is of type {value.type}")
        if isinstance(value, pa.Scalar):
            return pa.array([value.as_py()] * batch.num_rows, pa.bool_())
        return value


@dataclass(frozen=True)
class Expression:
    """Conditions that are joined by ``and``.

    Args:
        text: as people wrote it.
        conditions: in order; the first that a sample does not meet is the reason why it is dropped.
        columns: that they name.
    """

    text: str
    conditions: tuple[Condition, ...]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Read an expression.

        Raises:
            DataError: it is none, or has something that is not on the list.
        """
        if len(text) > LONGEST:
            raise DataError(f"an expression must have at most {LONGEST:,} letters, not {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DataError(
                f'the expression {text!r} must read like "width >= 64 and not is_duplicate", but '
                f"is not understood: {error}"
            ) from error
        _require_known(tree, text)
        match tree:
            case ast.BoolOp(op=ast.And(), values=parts):
                pass
            case _:
                parts = [tree]
        conditions = tuple(Condition(ast.unparse(part), part) for part in parts)
        return cls(text, conditions, tuple(dict.fromkeys(_columns(tree))))


def column_name(node: ast.expr) -> str | None:
    """``x`` or ``tool.x`` as a column's name; None if it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return None


def _columns(node: ast.expr) -> Iterator[str]:
    if (name := column_name(node)) is not None:
        yield name
        return
    skipped = node.func if isinstance(node, ast.Call) else None
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) and child is not skipped:
            yield from _columns(child)


def _require_known(node: ast.expr, text: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise DataError(f"the expression must be nested at most {_DEEPEST} deep, but is deeper")
    if column_name(node) is not None:
        return
    if not _is_known(node):
        raise DataError(f"the expression {text!r} must not have {ast.unparse(node)!r}\n{HELP}")
    skipped = node.func if isinstance(node, ast.Call) else None
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) and child is not skipped:
            _require_known(child, text, depth + 1)


def _is_known(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not() | ast.USub()):
            return True
        case ast.BinOp(op=operation):
            return type(operation) in _ARITHMETIC
        case ast.Constant(value=value):
            return value is None or isinstance(value, bool | int | float | str)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return all(isinstance(item, ast.Constant) for item in items)
        case ast.Compare(ops=operations, comparators=right):
            return all(map(_is_comparison, operations, right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            is_call = name in _FUNCTIONS and len(arguments) == _FUNCTIONS[name][0]
            return is_call and (name not in _SEARCHES or _is_text(arguments[1]))
    return False


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_comparison(operation: ast.cmpop, right: ast.expr) -> bool:
    if isinstance(operation, ast.In | ast.NotIn):
        return isinstance(right, ast.List | ast.Tuple)
    if isinstance(operation, ast.Is | ast.IsNot):
        return isinstance(right, ast.Constant) and right.value is None
    return type(operation) in _COMPARISONS and not isinstance(right, ast.List | ast.Tuple)


def _evaluate(node: ast.expr, batch: pa.RecordBatch) -> Value:
    if (name := column_name(node)) is not None:
        return batch[name]
    match node:
        case ast.Constant(value=value):
            return pa.scalar(value)
        case ast.BoolOp(op=operation, values=parts):
            join = pc.and_kleene if isinstance(operation, ast.And) else pc.or_kleene
            return _fold(join, [_evaluate(part, batch) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return pc.invert(_evaluate(operand, batch))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return pc.negate(_evaluate(operand, batch))
        case ast.BinOp(left=left, op=arithmetic, right=right):
            return _ARITHMETIC[type(arithmetic)](_evaluate(left, batch), _evaluate(right, batch))
        case ast.Compare(left=left, ops=operations, comparators=others):
            ends = [left, *others]
            compared = [
                _compare(*pair, batch) for pair in zip(ends, operations, others, strict=False)
            ]
            return _fold(pc.and_kleene, compared)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name][1](*(_evaluate(argument, batch) for argument in arguments))
    raise AssertionError(f"{ast.dump(node)} passed the list")


def _compare(left: ast.expr, operation: ast.cmpop, right: ast.expr, batch: pa.RecordBatch) -> Value:
    value = _evaluate(left, batch)
    if isinstance(operation, ast.Is | ast.IsNot):
        missing = pc.is_null(value)
        return missing if isinstance(operation, ast.Is) else pc.invert(missing)
    if isinstance(operation, ast.In | ast.NotIn):
        assert isinstance(right, ast.List | ast.Tuple)
        wanted = pa.array([ast.literal_eval(item) for item in right.elts])
        found = pc.if_else(pc.is_null(value), None, pc.is_in(value, value_set=wanted))
        return found if isinstance(operation, ast.In) else pc.invert(found)
    return _COMPARISONS[type(operation)](value, _evaluate(right, batch))


def _fold(join: Callable[[Value, Value], Value], values: list[Any]) -> Value:
    result = values[0]
    for value in values[1:]:
        result = join(result, value)
    return result

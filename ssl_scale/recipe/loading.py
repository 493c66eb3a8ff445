"""YAML into entries: plain data only, every value with its line, nothing that explodes.

Differs from ``yaml.safe_load``: ``1e-3`` is a number (as in YAML 1.2), a key that stands twice is a
fault, dates stay text, and documents that grow by aliases are refused.
"""

import re
from typing import Any

import yaml

from ssl_scale.errors import RecipeError
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.faults import Fault, Place, RecipeFaults

MAX_ALIASES = 100
MAX_ENTRIES = 20_000
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null")}
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class _LimitError(yaml.MarkedYAMLError):
    """A document that is legal YAML but not a recipe."""

    def __init__(self, problem: str, node: yaml.Node) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


class Loader(yaml.SafeLoader):
    """The safe loader, with fewer implicit types and a limit on aliases."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, counting aliases."""
        is_alias = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.aliases += is_alias
        if is_alias and node is not None and self.aliases > MAX_ALIASES:
            raise _LimitError(f"aliases must be at most {MAX_ALIASES}", node)
        return node


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads back as the same value."""

    def ignore_aliases(self, data: Any) -> bool:
        """Repeat equal values instead of pointing at them."""
        return True


for _side in (Loader, Dumper):
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _side.add_implicit_resolver(
        _TAG + "float", re.compile(f"^{_FLOAT.pattern}$"), list("-+.0123456789")
    )


def load(text: str | bytes, file: str, *, line: bool = True) -> Entry:
    """Read one YAML document.

    Args:
        text: the document.
        file: what messages call it.
        line: whether lines of the document mean anything to the reader of messages.

    Raises:
        RecipeError: it is not plain YAML.
    """
    loader: Loader | None = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Entry(None, Place(file, int(line)))
        return _Converter(loader, file, line).entry(node, node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1 if mark and line else int(line))
        raise _fault(
            file, place, f"must be plain YAML: {error.problem or error.context}"
        ) from error
    except yaml.YAMLError as error:
        place = Place(file, int(line))
        raise _fault(file, place, f"must be YAML text in UTF-8: {error}") from error
    except RecursionError as error:
        raise _fault(file, Place(file, int(line)), "is nested too deeply for a recipe") from error
    finally:
        if loader is not None:
            loader.dispose()


def dump(value: Any) -> str:
    """Plain data as YAML that `load` reads back."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _fault(file: str, place: Place, message: str) -> RecipeError:
    return RecipeFaults(file, (Fault(place, "", message),))


class _Converter:
    """Nodes into entries; aliases are expanded, so growth is counted here."""

    def __init__(self, loader: Loader, file: str, line: bool) -> None:
        self.loader, self.file, self.line = loader, file, line
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1 if self.line else 0)

    def entry(self, node: yaml.Node, named_by: yaml.Node, depth: int) -> Entry:
        self.count += 1
        if self.count > MAX_ENTRIES:
            raise _LimitError(f"values must be at most {MAX_ENTRIES}, aliases expanded", named_by)
        if depth > MAX_DEPTH:
            raise _LimitError(f"nesting must be at most {MAX_DEPTH} deep", named_by)
        if node.tag not in _PLAIN_TAGS:
            raise _LimitError(f"tags are not allowed, but there is {node.tag!r}", node)
        place = self.place(named_by)
        if isinstance(node, yaml.MappingNode):
            return Entry(self.mapping(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Entry([self.entry(inner, inner, depth + 1) for inner in node.value], place)
        return Entry(self.scalar(node), place)

    def scalar(self, node: yaml.Node) -> Any:
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            raise _LimitError(
                f"{node.tag.removeprefix(_TAG)} is malformed: {error}", node
            ) from error

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged = self.merged(value, depth) | merged
                continue
            name = self.scalar(key) if isinstance(key, yaml.ScalarNode) else None
            if key.tag != _TAG + "str" or not isinstance(name, str):
                raise _LimitError(f"keys must be text, but one is {key.value!r}; quote it", key)
            if name in own:
                raise _LimitError(
                    f"key {name!r} must stand once, but stands on line {own[name].place.line} too",
                    key,
                )
            own[name] = self.entry(value, key, depth + 1)
        return merged | own

    def merged(self, node: yaml.Node, depth: int) -> dict[str, Entry]:
        """What ``<<`` brings: one mapping or several, of which the first wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Entry] = {}
        for inner in nodes:
            if not isinstance(inner, yaml.MappingNode):
                raise _LimitError("'<<' must be given mappings", node)
            found = self.entry(inner, inner, depth + 1).items | found
        return found

"""YAML that remembers where it was written: every key keeps its file, line and key path through merging.

A mapping is read as a `Block`, a list as `Items`, everything else as plain text, numbers, booleans and null. Keys are always
text, as written (YAML 1.1 would read the key `on` as true). A key given twice is an error. No block is changed once made:
`merged` and `with_value` return new ones.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MERGE, TIMESTAMP = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:timestamp"
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}
EXPONENT = re.compile(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)")
LONGEST_EXCERPT = 110


class ExperimentError(ValueError):
    """An experiment file that cannot be used. Its text is the whole message: where, which key, what is wrong, the choices."""


class MissingKeyError(ExperimentError):
    """A key that must be given is not: the one fault that an overlay of another scale may still mend."""


@dataclass(frozen=True)
class Mark:
    """Where something was written.

    file: as shown to the user, or "command line".  line: from 1; 0 on the command line.  path: the key path as written there
    ("rows.vae.model").  excerpt: the line itself.
    """

    file: str
    line: int
    path: str
    excerpt: str

    def below(self, key: str) -> str:
        """The path of a key in what stands here."""
        return f"{self.path}.{key}" if self.path else key

    def error(self, what: str, *, key: str = "", kind: type[ExperimentError] = ExperimentError) -> ExperimentError:
        """The error to raise: `file:line: key.path: what`, and the line under it.

        key: of something that is not there, below this mark.
        """
        where = f"{self.file}:{self.line}" if self.line else self.file
        path = self.below(key) if key else self.path
        text = ": ".join(part for part in (where, path, what) if part)
        if not self.excerpt:
            return kind(text)
        return kind(f"{text}\n{self.line or '':>6} | {self.excerpt}")


class Block(dict):
    """A mapping. mark: of the mapping itself; marks: of its keys."""

    def __init__(self, mark: Mark, items: Iterable[tuple[str, Any]] = (), marks: dict[str, Mark] | None = None) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks = dict(marks or {})

    def only(self, keys: Iterable[str]) -> "Block":
        """The part of it under these keys."""
        keys = set(keys)
        return Block(self.mark, ((k, v) for k, v in self.items() if k in keys), self.marks)

    def without(self, keys: Iterable[str]) -> "Block":
        """The rest of it."""
        return self.only(self.keys() - set(keys))


class Items(list):
    """A list. mark: of the list itself; marks: of its items."""

    def __init__(self, mark: Mark, items: Iterable[Any], marks: Sequence[Mark]) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks = list(marks)


def locate(value: Any, path: Sequence[str | int]) -> Mark:
    """The mark of what stands at `path`, or of the deepest thing on the way there."""
    mark = value.mark
    for part in path:
        if not _inside(value, part):
            break
        mark, value = value.marks[part], value[part]
    return mark


def at(value: Any, path: Sequence[str | int]) -> Any:
    """What stands at `path`; None where there is nothing."""
    for part in path:
        if not _inside(value, part):
            return None
        value = value[part]
    return value


def _inside(value: Any, part: str | int) -> bool:
    return part in value if isinstance(value, Block) else isinstance(value, Items) and part in range(len(value))


def plain(value: Any) -> Any:
    """The same values as plain dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def merged(base: Any, over: Any) -> Any:
    """`over` laid on `base`: a mapping that gives `name` replaces it whole, any other mapping merges key by key, null removes
    the key, everything else replaces."""
    if not isinstance(over, Block) or "name" in over:
        return over
    if not isinstance(base, Block):
        base = Block(over.mark)
    result = Block(base.mark, base.items(), base.marks)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
            continue
        inside = isinstance(value, Block) and "name" not in value and isinstance(result.get(key), Block)
        result.marks[key] = base.marks[key] if inside else over.marks[key]
        result[key] = merged(result.get(key), value)
    return result


def with_value(block: Any, path: Sequence[str], value: Any, mark: Mark) -> Any:
    """`block` with `value` laid on what stands at `path` (mappings merge, null removes, numbers index lists)."""
    if isinstance(block, Items):
        if not path[0].isdigit() or int(path[0]) >= len(block):
            raise mark.error(f"{path[0]!r} is not the index of an item; this list has {len(block)}, counted from 0")
        index = int(path[0])
        inner = merged(block[index], value) if len(path) == 1 else with_value(block[index], path[1:], value, mark)
        marks = [mark if i == index and not isinstance(inner, Block) else m for i, m in enumerate(block.marks)]
        return Items(block.mark, [inner if i == index else item for i, item in enumerate(block)], marks)
    if not isinstance(block, Block):
        block = Block(mark)
    key = path[0]
    if len(path) == 1:
        return merged(block, Block(mark, [(key, value)], {key: mark}))
    result = Block(block.mark, block.items(), block.marks)
    result.marks.setdefault(key, mark)
    result[key] = with_value(block.get(key), path[1:], value, mark)
    return result


# Reading.


def read(path: Path, begins: str = "an experiment begins with `table: paper/table` and `rows:`") -> Block:
    """The mapping that a YAML file holds. begins: what to say of a file that holds none."""
    shown = shown_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Mark(shown, line, "", "").error("not UTF-8 text") from None
    value = _Reader(shown, text, text.splitlines()).document()
    if not isinstance(value, Block):
        found = "is empty" if value is None else "does not hold a mapping"
        raise Mark(shown, 1, "", "").error(f"the file {found}; {begins}")
    return value


def read_value(text: str, mark: Mark) -> Any:
    """The value of a command-line override, read as YAML."""
    return _Reader(mark.file, text, [], mark).document()


def shown_path(path: Path) -> str:
    """A path as messages show it: from the working directory where it lies inside."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class _Reader:
    def __init__(self, file: str, text: str, lines: list[str], fixed: Mark | None = None) -> None:
        self.file, self.text, self.lines, self.fixed = file, text, lines, fixed

    def mark(self, line: int, path: str) -> Mark:
        """line: from 0, as PyYAML counts."""
        if self.fixed:  # the whole text stands in one place
            joint = "" if not path or path.startswith("[") else "."
            return Mark(self.fixed.file, 0, f"{self.fixed.path}{joint}{path}", self.fixed.excerpt)
        excerpt = self.lines[line].rstrip() if line < len(self.lines) else ""
        if len(excerpt) > LONGEST_EXCERPT:
            excerpt = excerpt[: LONGEST_EXCERPT - 3] + "..."
        return Mark(self.file, line + 1, path, excerpt)

    def document(self) -> Any:
        try:
            self.loader = yaml.SafeLoader(self.text)
            node = self.loader.get_single_node()
            return None if node is None else self.value(node, "", ())
        except yaml.MarkedYAMLError as error:
            line, what = _broken(error)
            raise self.mark(line, "").error(f"broken YAML: {what}") from None
        except yaml.YAMLError as error:  # a character that YAML does not allow
            what = getattr(error, "reason", str(error))
            line = self.text[: getattr(error, "position", 0)].count("\n")
            raise self.mark(line, "").error(f"broken YAML: {what}") from None

    def value(self, node: yaml.Node, path: str, above: tuple[int, ...]) -> Any:
        mark = self.mark(node.start_mark.line, path)
        if id(node) in above:
            raise mark.error("an alias that contains itself")
        if node.tag not in PLAIN_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise mark.error(f"the tag {tag} means nothing here; a setting is a plain value")
        if isinstance(node, yaml.MappingNode):
            return self.block(node, mark, path, (*above, id(node)))
        if isinstance(node, yaml.SequenceNode):
            places = [f"{path}[{index}]" for index in range(len(node.value))]
            items = [self.value(item, place, (*above, id(node))) for item, place in zip(node.value, places, strict=True)]
            marks = [self.mark(item.start_mark.line, place) for item, place in zip(node.value, places, strict=True)]
            return Items(mark, items, marks)
        return self.scalar(node, mark)

    def block(self, node: yaml.MappingNode, mark: Mark, path: str, above: tuple[int, ...]) -> Block:
        own, inherited = Block(mark), []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.mark(line, path).error("a key must be a word")
            if key_node.tag == MERGE:  # `<<: *anchor`: keys to fall back on
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                inherited += [self.value(source, path, above) for source in sources]
                continue
            key = key_node.value
            key_mark = self.mark(line, f"{path}.{key}" if path else key)
            if key in own:
                raise key_mark.error(f"the key {key!r} is given twice; first on line {own.marks[key].line}")
            own[key], own.marks[key] = self.value(value_node, key_mark.path, above), key_mark
        for source in inherited:
            if not isinstance(source, Block):
                raise mark.error("`<<` takes a mapping")
            for key in source:
                if key not in own:
                    own[key], own.marks[key] = source[key], source.marks[key]
        return own

    def scalar(self, node: yaml.ScalarNode, mark: Mark) -> str | int | float | bool | None:
        if node.tag == TIMESTAMP:
            raise mark.error(f"YAML reads {node.value} as a date; put it in quotes")
        try:
            value = self.loader.construct_object(node)
        except ValueError:
            raise mark.error(f"{node.value!r} is not of the type that its tag says") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise mark.error(f"a number must be finite, not {node.value}")
        return value


def _broken(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line (from 0) that a fault of syntax is on, and what it is, in the words of who wrote it."""
    context, problem = error.context or "", error.problem or ""
    at_fault = error.problem_mark or error.context_mark
    began = error.context_mark or at_fault
    if "'\\t'" in problem:
        return at_fault.line, "a tab; indent with spaces"
    if context == "while scanning a simple key":
        return began.line, "a key without its colon, or a text without its quotes"
    if context.startswith("while parsing a flow"):
        return began.line, f"a bracket opened here is not closed, or a comma is missing, by line {at_fault.line + 1}"
    if problem.startswith("expected <block end>"):
        return at_fault.line, "the indentation does not fit the lines above"
    if problem == "but found another document":
        return at_fault.line, "a second document; one file is one table"
    return at_fault.line, "; ".join(part for part in (context, problem) if part)


def number_meant(text: str) -> str | None:
    """How to write the number that PyYAML reads as text: `1e-3` -> `1.0e-3`."""
    match = EXPONENT.fullmatch(text.strip())
    if not match:
        return None
    whole, fraction, sign, exponent = match.groups()
    return f"{whole}{fraction if fraction and len(fraction) > 1 else '.0'}e{sign or '+'}{exponent}"

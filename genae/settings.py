"""The constructor is the config: settings in YAML, checked against the keyword-only parameters of what they configure.

pydantic checks the types that the annotations state: strictly, in its JSON mode, so that a list fits a tuple and a whole number
a float, but a text never a number. What a dataclass refuses itself (ValueError in `__post_init__`) is reported the same way. A
whole number whose name says that it counts or sizes something cannot be negative, without being annotated so.
"""

import dataclasses
import difflib
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union

import pydantic
import pydantic_core

from genae.registry import Registry, suggestion
from genae.yaml_source import Block, ExperimentError, Mark, MissingKeyError, at, locate, number_meant, plain

STRICT = pydantic.ConfigDict(strict=True, extra="forbid")
POSITIVE = re.compile(r"(.+_)?(dims?|widths?|channels|resolution)|batch_size")
NOT_NEGATIVE = re.compile(r"num_.+|(.+_)?(sizes?|depth|count|layers|blocks)")  # 0 turns some of these off
MOST_PROBLEMS = 5  # in one message, which is to fit one screen
Place = tuple[str | int, ...]


def component(registry: Registry, block: Any, mark: Mark) -> dict[str, Any]:
    """The resolved spec of a registered component: its name, then all of its settings, defaults filled in."""
    what = registry.kind
    if not isinstance(block, Block):
        hint = f"; write {{name: {block}}}" if isinstance(block, str) and block in registry else ""
        raise mark.error(f"{_a(what)} is a mapping with a name, not {shown(block)}{hint}")
    if block.get("name") is None:
        raise block.mark.error(f"missing: which {what}? {suggestion('', registry.names())}", key="name", kind=MissingKeyError)
    if not isinstance(block["name"], str):
        raise block.marks["name"].error(f"the name of {_a(what)} is text, not {shown(block['name'])}")
    if block["name"] not in registry:
        raise block.marks["name"].error(f"there is no {what} {block['name']!r}; {suggestion(block['name'], registry.names())}")
    entry = registry[block["name"]]
    settings = check(entry.factory, block.without({"name"}), f"{what} {entry.name!r}", block.mark)
    inner = {key: component(kind, block[key], block.marks[key]) for key, kind in entry.nested.items() if key in block}
    return {"name": entry.name, **settings, **inner}


def check(factory: Callable, block: Any, what: str, mark: Mark) -> dict[str, Any]:
    """A mapping checked against a factory's keyword-only parameters: plain JSON values, defaults filled in.

    what: names the factory in messages ("model 'vae'").  mark: where the mapping stands.
    """
    if not isinstance(block, Block):
        raise mark.error(f"must be a mapping, not {shown(block)}")
    adapter, kind = _checker(factory)
    try:
        (settings,) = adapter.validate_json(json.dumps([plain(block)]))
    except pydantic.ValidationError as error:
        raise _combined(list(_problems(error, kind, block, what))) from None
    if dataclasses.is_dataclass(factory):  # which may refuse what its types allow
        try:
            factory(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})
        except ValueError as error:
            raise _refused(str(error), block, ()) from None
    return adapter.dump_python((settings,), mode="json")[0]


def schema(factory: Callable) -> dict[str, Any]:
    """The JSON Schema of a factory's settings, with what its docstring says of each ("name: what it is")."""
    whole = _checker(factory)[0].json_schema()
    found = _inlined(whole["prefixItems"][0], whole.get("$defs", {}))
    found.pop("description", None)
    for parameter in _settings(factory):
        if parameter.default is not parameter.empty:
            found["properties"][parameter.name]["default"] = pydantic_core.to_jsonable_python(parameter.default)
    names = "|".join(map(re.escape, found["properties"]))
    _, *parts = re.split(rf"(?:^|\n|  )({names}): ", inspect.getdoc(factory) or "") if names else [""]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        found["properties"][name]["description"] = " ".join(text.partition("\n\n")[0].split())
    return found


@functools.cache
def _checker(factory: Callable) -> tuple[pydantic.TypeAdapter, type]:
    """The settings as a dataclass, and what checks a 1-tuple of it (pydantic takes no configuration for a bare dataclass)."""
    kind = dataclasses.make_dataclass(factory.__name__, [_field(parameter) for parameter in _settings(factory)], kw_only=True)
    return pydantic.TypeAdapter(tuple[kind], config=STRICT), kind


def _settings(factory: Callable) -> list[inspect.Parameter]:
    parameters = inspect.signature(factory, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _field(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    default = parameter.default
    if POSITIVE.fullmatch(parameter.name) or NOT_NEGATIVE.fullmatch(parameter.name):
        annotation = _at_least(1 if POSITIVE.fullmatch(parameter.name) and default != 0 else 0, annotation)
    if default is parameter.empty:
        return parameter.name, annotation, dataclasses.field()
    return parameter.name, annotation, dataclasses.field(default_factory=lambda: default)


def _at_least(least: int, annotation: Any) -> Any:
    """The annotation with every `int` in it bounded from below; one that is Annotated already stays as it is."""
    if annotation is int:
        return Annotated[int, pydantic.Field(ge=least)]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return Union[tuple(_at_least(least, argument) for argument in arguments)]  # noqa: UP007 (built at run time)
    if origin in (tuple, list, dict):
        return origin[tuple(_at_least(least, argument) for argument in arguments)]
    return annotation


# What is wrong, in words.


def shown(value: Any) -> str:
    """A value as messages show it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the text {value!r}" if isinstance(value, str) else repr(value)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def text_hint(value: Any) -> str:
    """What to say after a text that stands where a number should."""
    if not isinstance(value, str):
        return ""
    if meant := number_meant(value):
        return f"; YAML reads {value} as text: write {meant}"
    return "; take away the quotes" if re.fullmatch(r"[-+]?\d+(\.\d*)?", value) else ""


def _hint(value: Any, annotation: Any) -> str:
    """What to write instead, where that is plain."""
    wanted = expected(annotation)
    if isinstance(value, bool) and "text" in wanted:
        return "; YAML reads yes, no, on and off as truth values: put a word in quotes"
    item = str if wanted.startswith("a list of texts") else int if wanted.startswith("a list of whole") else None
    if item and isinstance(value, item) and not isinstance(value, bool):
        return f"; write [{value}]"
    return text_hint(value) if "number" in wanted else ""


def expected(annotation: Any) -> str:
    """What an annotation takes, in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null", Any: "anything"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in words:
        return words[annotation]
    if origin is Annotated:
        return expected(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(expected(argument) for argument in arguments)
    if origin is tuple and arguments[-1:] != (...,):
        return f"a list of {len(arguments)} ({', '.join(expected(argument) for argument in arguments)})"
    if origin in (tuple, list):
        return f"a list of {_plural(expected(arguments[0]))}" if arguments else "a list"
    return "a mapping"


def _plural(words: str) -> str:
    kinds = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts", "a mapping": "mappings"}
    return kinds.get(words, f"items, each {words}")


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """The annotations of what stands under a key or an index."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated or origin in (Union, types.UnionType):
        for argument in arguments[:1] if origin is Annotated else arguments:
            yield from _below(argument, part)
    elif dataclasses.is_dataclass(annotation):
        yield from (hint for name, hint in typing.get_type_hints(annotation, include_extras=True).items() if name == part)
    elif origin in (tuple, list) and isinstance(part, int):
        variable = origin is list or arguments[-1] is ...
        yield from arguments[:1] if variable else arguments[part : part + 1]
    elif origin in (dict, Mapping) and isinstance(part, str):
        yield arguments[1]


def _annotation(kind: type, path: Place) -> Any:
    for part in path:
        kind = next(_below(kind, part), Any)
    return kind


def _problems(error: pydantic.ValidationError, kind: type, block: Block, what: str) -> Iterator[ExperimentError]:
    """One error per faulty place. Where a union was tried, the attempt that came deepest knows best what was meant."""
    faults: dict[Place, dict] = {}
    for fault in error.errors(include_url=False):
        path: Place = ()
        for part in fault["loc"][1:]:  # [0] is the 1-tuple; names of union members are in the way too
            found = at(block, path)
            if (isinstance(found, dict) and part in found) or (isinstance(found, list) and part in range(len(found))):
                path = (*path, part)
        if fault["type"].startswith("missing") and isinstance(fault["loc"][-1], str):
            path = (*path, fault["loc"][-1])
        faults.setdefault(path, fault)
    unknown = [path for path, fault in faults.items() if fault["type"] == "unexpected_keyword_argument"]
    for path, fault in faults.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in faults)
        meant = [other for other in unknown if other[:-1] == path[:-1] and difflib.get_close_matches(other[-1], path[-1:])]
        if not deeper and (path in unknown or not meant):  # a misspelt setting is not missing besides
            yield _worded(fault, path, kind, block, what)


def _worded(fault: Mapping[str, Any], path: Place, kind: type, block: Block, what: str) -> ExperimentError:
    mark, value, problem = locate(block, path), at(block, path), fault["type"]
    owner = _annotation(kind, path[:-1])
    settings = [field.name for field in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
    holder = what if len(path) <= 1 else f"an entry of {next(part for part in reversed(path[:-1]) if isinstance(part, str))}"
    if problem == "unexpected_keyword_argument":
        return mark.error(f"{holder} has no setting {path[-1]!r}; {suggestion(str(path[-1]), settings)}")
    annotation = _annotation(kind, path)
    length = f" of {len(value)}" if isinstance(value, list) and typing.get_origin(annotation) is tuple else ""
    if problem.startswith("missing") and not length:
        return mark.error(f"missing: {holder} needs it ({expected(annotation)})", key=str(path[-1]), kind=MissingKeyError)
    if problem == "value_error":
        return _refused(str(fault["ctx"]["error"]), block, path)
    if fault["loc"][-1] == "[key]":
        return mark.error(f"the key {path[-1]!r} must be a whole number")
    if typing.get_origin(annotation) is Literal:
        choices = [str(choice) for choice in typing.get_args(annotation)]
        nearest = suggestion(value, choices) if isinstance(value, str) else f"known: {', '.join(choices)}"
        return mark.error(
            f"cannot be {value!r}; {nearest}" if isinstance(value, str) else f"cannot be {shown(value)}; {nearest}"
        )
    if problem.endswith(("_type", "_parsing", "_from_float")) or problem in ("missing", "too_short", "too_long"):
        return mark.error(f"must be {expected(annotation)}, not {shown(value)}{length}{_hint(value, annotation)}")
    bounds = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below", "less_than_equal": "at most"}
    if problem in bounds:
        limit = next(value for key, value in fault["ctx"].items() if key in ("gt", "ge", "lt", "le"))
        return mark.error(f"must be {bounds[problem]} {limit}, not {shown(value)}")
    return mark.error(f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {shown(value)}")


def _refused(message: str, block: Block, path: Place) -> ExperimentError:
    """What a dataclass's own check says. A message that begins with a place ("phases[1]: ...") or a setting is put there."""
    place, colon, rest = message.partition(": ")
    inner = (*path, *(int(part) if part.isdigit() else part for part in re.findall(r"\w+", place)))
    if colon and re.fullmatch(r"[\w.\[\]]+", place) and at(block, inner) is not None:
        return _refused(rest, block, inner)
    named = re.match(r"(\w+) (must .+)?", message)
    if named and named[1] in (at(block, path) or ()):
        return locate(block, (*path, named[1])).error(named[2] or message)
    return locate(block, path).error(message)


def _combined(problems: list[ExperimentError]) -> ExperimentError:
    """All of a component's problems in one message."""
    lacking = all(isinstance(problem, MissingKeyError) for problem in problems)
    lines = [str(problem) for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"... and {len(problems) - MOST_PROBLEMS} more")
    return (MissingKeyError if lacking else ExperimentError)("\n".join(lines))


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """A JSON Schema without references and without titles."""
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(item, definitions) for key, item in value.items() if not (key == "title" and isinstance(item, str))}

"""Names in YAML -> factories.

A factory is a class or a function. Its positional parameters are what genae passes in (an image shape, a split); its
keyword-only parameters are the settings that a YAML file may give, their annotations the types that are checked, their
defaults the published values. There is no list to edit: the first look-up imports every module of the kind's folder, and the
modules that installed packages name in the entry-point group `genae`.
"""

import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    nearest = f"did you mean {close[0]!r}? " if close else ""
    return f"{nearest}known: {', '.join(known) if known else 'none'}"


@dataclass(frozen=True)
class Entry:
    """A registered factory, and what its identity needs to know of its history.

    revision: raised when the same settings come to mean something else; it is hashed into a run's identity.
    added: settings that came later, with the value that repeats what was before; left out of the hash at that value.
    small: settings that make it quick, for the contract tests.
    sizes: of a data set: the resolutions that it has besides powers of two.
    nested: settings that are specs of components themselves (a data set made of two), with the registry that knows those.
    """

    name: str
    factory: Callable[..., Any]
    revision: int = 1
    added: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    nested: Mapping[str, "Registry"] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of the factory, by name, with their annotations resolved."""
        signature = inspect.signature(self.factory, eval_str=True)
        return {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring (empty for one that a dataclass wrote for itself)."""
        own = self.factory.__dict__.get("__doc__") if isinstance(self.factory, type) else self.factory.__doc__
        text = inspect.cleandoc(own or "")
        return "" if text.startswith(f"{self.factory.__name__}(") else text.partition("\n")[0]


def _typed(annotation: Any, value: Any) -> Any:
    """A value from YAML or JSON as its annotation wants it: a list as a tuple, keys that are numbers as numbers."""
    if not isinstance(value, list | dict):
        return value
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = (list, tuple) if isinstance(value, list) else (dict, Mapping)
        fitting = (member for member in arguments if (typing.get_origin(member) or member) in kinds)
        return _typed(next(fitting, None), value)
    if isinstance(value, list):
        items = [_typed(arguments[0] if arguments else None, item) for item in value]
        return tuple(items) if origin is tuple else items
    key_kind, inner = arguments or (str, None)
    return {int(key) if key_kind is int else key: _typed(inner, item) for key, item in value.items()}


class Registry:
    """One kind of component: what is registered under which name."""

    def __init__(self, kind: str, folder: str) -> None:
        self.kind = kind
        self.folder = folder
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def add(
        self,
        name: str,
        *,
        revision: int = 1,
        added: Mapping[str, Any] | None = None,
        small: Mapping[str, Any] | None = None,
        sizes: tuple[int, ...] = (),
        nested: Mapping[str, "Registry"] | None = None,
    ) -> Callable:
        """Decorator that registers a factory. A name taken by another module's factory raises ValueError."""

        def register(factory: Callable) -> Callable:
            before = self._entries.get(name)
            if before and (before.factory.__module__, before.factory.__qualname__) != (
                factory.__module__,
                factory.__qualname__,
            ):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {before.factory.__module__}, {factory.__module__}")
            self._entries[name] = Entry(name, factory, revision, added or {}, small or {}, sizes, nested or {})
            return factory

        return register

    def __getitem__(self, name: str) -> Entry:
        self._load()
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} {name!r}; {suggestion(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._entries)

    def build(self, spec: Mapping[str, Any], *passed: Any) -> Any:
        """The component that a YAML mapping `{name: ..., setting: value, ...}` describes."""
        entry = self[spec["name"]]
        annotations = {key: parameter.annotation for key, parameter in entry.settings.items()}
        settings = {key: _typed(annotations.get(key), value) for key, value in spec.items() if key != "name"}
        return entry.factory(*passed, **settings)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # set first: a module of the folder may look a name up while it is being imported
        package = importlib.import_module(f"genae.{self.folder}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"genae.{self.folder}.{module.name}")
        for point in importlib.metadata.entry_points(group="genae"):
            importlib.import_module(point.module)


DATASETS = Registry("dataset", "data")
MODELS = Registry("model", "models")
DENSITIES = Registry("density", "densities")
OBJECTIVES = Registry("objective", "objectives")
METRICS = Registry("metric", "metrics")
FIGURES = Registry("figure", "figures")
FEATURES = Registry("feature extractor", "features")
REGISTRIES = (DATASETS, MODELS, DENSITIES, OBJECTIVES, METRICS, FIGURES, FEATURES)

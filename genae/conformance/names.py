"""Which registered names a contract test runs over."""

import importlib
import os

from genae.registry import Registry


def registered(registry: Registry) -> list[str]:
    """Every name, or where the environment variable GENAE_CHECK names a module, only those that this module registers."""
    module = os.environ.get("GENAE_CHECK")
    if not module:
        return registry.names()
    importlib.import_module(module)
    return [name for name in registry.names() if registry[name].factory.__module__ == module]


def buildable(registry: Registry) -> list[str]:
    """Every name whose small settings are all that its factory needs; what reads a file of the user's own is not among them."""

    def needs_more(name: str) -> bool:
        required = {key for key, setting in registry[name].settings.items() if setting.default is setting.empty}
        return bool(required - registry[name].small.keys())

    return [name for name in registry.names() if not needs_more(name)]

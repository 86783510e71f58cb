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

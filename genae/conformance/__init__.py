"""The contract tests, shipped with the package: `genae check MODULE` runs them over what a module registers."""


def check(module: str) -> int:
    """Run the contract tests over the components that `module` registers; returns pytest's exit status.

    Raises ValueError where pytest is not installed, the module cannot be found, or it registers nothing.
    """
    import importlib.util
    import os
    from pathlib import Path

    from genae.conformance.names import registered
    from genae.experiment import import_modules, project_root
    from genae.registry import REGISTRIES

    if importlib.util.find_spec("pytest") is None:
        raise ValueError("`genae check` needs pytest: pip install 'genae[test]'")
    import pytest

    root = project_root(Path.cwd())
    import_modules([module], root)
    os.environ["GENAE_CHECK"] = module
    if not any(registered(registry) for registry in REGISTRIES):
        raise ValueError(
            f"module {module!r} registers nothing: it needs a factory under @MODELS.add(...), @OBJECTIVES.add(...), ..."
        )
    folder = Path(__file__).parent
    return int(pytest.main([str(folder), "-q", "--import-mode=importlib", "-p", "no:cacheprovider", f"--rootdir={folder}"]))

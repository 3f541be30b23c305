"""Import paths of version 0.1 that have moved; they go on working, with a warning that names the new one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "find_moved", "moved_names"]

# By their old path below `equivae`: the modules that have the names now.
MOVED: dict[str, tuple[str, ...]] = {
    "analysis": ("reporting.analysis",),
    "evaluation.compare": ("reporting.compare",),
    "evaluation.evaluate": ("reporting.evaluate",),
    "evaluation.figures": ("reporting.figures",),
    "evaluation.report": ("reporting.report",),
    "latents": ("autoencoder.scaling", "evaluation.latent_statistics"),
    "padding": ("autoencoder.padding",),
    "pretrained": ("files.pretrained",),
    "single_file": ("files.single_file", "files.export"),
    "symmetrize": ("symmetry",),
    "symmetrize.domain": ("symmetry.domain",),
    "symmetrize.module": ("symmetry.module",),
    "symmetrize.symmetrize": ("symmetry.fit",),
}


class _MovedModule(ModuleType):
    """An old path. `equivae.symmetrize` was a package and a function at once, so it can be called too."""

    def __getattr__(self, name: str) -> Any:
        homes = MOVED[self.__name__.removeprefix("equivae.")]
        for home in homes:
            module = import_module(f"equivae.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _MovedLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        home = MOVED[module.__name__.removeprefix("equivae.")]
        new = " and ".join(f"equivae.{name}" for name in home)
        warnings.warn(f"{module.__name__} has moved to {new}.", DeprecationWarning, stacklevel=2)


class _MovedFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "equivae" or name not in MOVED:
            return None
        return ModuleSpec(fullname, _MovedLoader(), is_package=name == "symmetrize")


def find_moved() -> None:
    """Let Python's import find the old paths; called once, by the package."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedFinder())


def moved_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` for names that it had, and the modules that have them now."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        warnings.warn(
            f"{package}.{name} has moved to {homes[name]}.", DeprecationWarning, stacklevel=2
        )
        return getattr(import_module(homes[name]), name)

    return find

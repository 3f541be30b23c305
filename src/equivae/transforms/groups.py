"""Groups of lattice transforms, and the one place where names become transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from equivae.errors import InputError, did_you_mean
from equivae.transforms.base import Transform
from equivae.transforms.lattice import LATTICE
from equivae.transforms.registry import UnknownName, get_transform, list_transforms
from equivae.transforms.spelling import split_transforms

__all__ = [
    "Group",
    "TransformsLike",
    "get_group",
    "list_groups",
    "resolve_transforms",
    "split_transforms",
]


@dataclass(frozen=True)
class Group(Sequence[Transform]):
    """A finite group of transforms, the identity first; iterate over it for its elements.

    ```python
    d4 = equivae.get_group("d4")
    assert len(d4) == 8
    assert all(a @ b in d4.elements for a in d4 for b in d4)
    ```
    """

    name: str
    elements: tuple[Transform, ...]

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.elements[index]

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.elements)


TransformsLike = Union[str, Transform, Group, Iterable[Union[str, Transform, Group]]]

_GROUPS = {
    "c2": ("identity", "rot180"),
    "c4": ("identity", "rot90", "rot180", "rot270"),
    "d2": ("identity", "rot180", "hflip", "vflip"),
    "d4": (
        "identity",
        "rot90",
        "rot180",
        "rot270",
        "hflip",
        "vflip",
        "transpose",
        "antitranspose",
    ),
}


def list_groups() -> list[str]:
    """The names of the groups: `c2`, `c4`, `d2`, `d4`."""
    return list(_GROUPS)


def get_group(name: str) -> Group:
    """The group of that name; `InputError` for an unknown one."""
    if name not in _GROUPS:
        raise InputError(f"unknown group {name!r}.{did_you_mean(name, list_groups())}")
    return Group(name, tuple(get_transform(element) for element in _GROUPS[name]))


def resolve_transforms(transforms: TransformsLike) -> list[Transform]:
    """Transforms from names, groups, transforms, or any mixture of them; their names are distinct.

    A name is anything that `get_transform` reads. A group stands for its elements. The identity, which
    every loss and metric has beside the transforms anyway, is left out, and of equal transforms the
    first stays. Raises `InputError` for an unknown name, and for transforms that do different things
    under one name, since losses and reports tell them apart by it.

    ```python
    names = [t.name for t in equivae.resolve_transforms(["c4", "hflip", "rot180"])]
    assert names == ["rot90", "rot180", "rot270", "hflip"]
    ```
    """
    if isinstance(transforms, (str, Transform)):
        transforms = [transforms]
    if not isinstance(transforms, Iterable):
        raise _no_transform(transforms)
    found: list[Transform] = []
    for item in transforms:
        for transform in _members(item):
            if transform != _IDENTITY and transform not in found:
                found.append(transform)
    _check_names(found)
    return found


_IDENTITY = LATTICE[0]


def _members(item: str | Transform | Group) -> Iterable[Transform]:
    if isinstance(item, Group):
        return item
    if isinstance(item, Transform):
        return [item]
    if not isinstance(item, str):
        raise _no_transform(item)
    if item.strip() in _GROUPS:
        return get_group(item.strip())
    try:
        return [get_transform(item)]
    except UnknownName as error:
        known = [*list_transforms(), *_GROUPS]
        raise InputError(
            f"unknown transform {error.word!r}.{did_you_mean(error.word, known)}"
        ) from error


def _no_transform(item: object) -> InputError:
    return InputError(
        f"{item!r} is not a transform: pass names such as 'rot180', groups such as 'd4', or "
        "equivae.Transform objects."
    )


def _check_names(transforms: Sequence[Transform]) -> None:
    named: dict[str, Transform] = {}
    for transform in transforms:
        if transform.name in named:
            raise InputError(
                f"two transforms that do different things are both called {transform.name!r}, by which "
                "losses and reports could not tell them apart; give one of them another name."
            )
        named[transform.name] = transform

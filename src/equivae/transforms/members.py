"""The transforms that a random transform draws from."""

from __future__ import annotations

from equivae.errors import InputError
from equivae.transforms.base import ComposedTransform, Transform
from equivae.transforms.combinators import Choice
from equivae.transforms.families import PerSample, RandomScale, RandomTransform

__all__ = ["is_random", "members_of", "with_members"]


def is_random(transform: Transform) -> bool:
    """Whether it has parameters only once they are drawn."""
    if isinstance(transform, ComposedTransform):
        return is_random(transform.outer) or is_random(transform.inner)
    return isinstance(transform, RandomTransform)


def members_of(transform: Transform) -> list[Transform]:
    """The fixed transforms that it draws from, each once; of a product, those of every factor.

    Raises `InputError` for one that draws from a range of numbers, of which there are no end.

    ```python
    import equivae
    from equivae.transforms.members import members_of

    names = [t.name for t in members_of(equivae.get_transform("eqvae"))]
    assert names[:2] == ["scale(factor=0.25,antialias=False)", "scale(factor=0.28125,antialias=False)"]
    assert names[-3:] == ["rot90", "rot180", "rot270"]
    ```
    """
    found: dict[str, Transform] = {}
    for member in _members(transform):
        if member.name != "identity":
            found.setdefault(member.name, member)
    return list(found.values())


def _members(transform: Transform) -> list[Transform]:
    if isinstance(transform, ComposedTransform):
        return [*_members(transform.inner), *_members(transform.outer)]
    if isinstance(transform, Choice):
        return [fixed for member in transform.members for fixed in _members(member)]
    if isinstance(transform, RandomScale) and not transform.anisotropic:
        return list(transform.scales())
    if isinstance(transform, RandomTransform):
        raise InputError(
            f"transform {transform.name!r} draws from more transforms than can be fitted one by one; fit "
            "a 'choice' of the ones that you need."
        )
    return [transform]


def with_members(drawn: Transform, known: dict[str, Transform]) -> Transform:
    """A drawn transform whose parts are those of the same name in `known`.

    Raises `InputError` for a part that is none of them.
    """
    if drawn.name in known:
        return known[drawn.name]
    if isinstance(drawn, ComposedTransform):
        outer, inner = (with_members(part, known) for part in (drawn.outer, drawn.inner))
        return ComposedTransform(outer, inner, drawn.name)
    if isinstance(drawn, PerSample):
        parts = [(with_members(part, known), rows) for part, rows in drawn.parts]
        return PerSample(parts, drawn.name)
    if drawn.name == "identity":
        return drawn
    raise InputError(f"nothing was fitted for {drawn.name!r}; fit the transform again.")

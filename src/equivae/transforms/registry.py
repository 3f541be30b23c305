"""Names for transforms: register, get, list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from torch import Tensor

from equivae.errors import InputError, did_you_mean
from equivae.transforms.base import ChannelResponse, Transform
from equivae.transforms.plugins import load_plugins
from equivae.transforms.representations import ChannelPermutation, SignFlips
from equivae.transforms.spelling import (
    NAME,
    NAME_RULE,
    Call,
    Inverse,
    Product,
    Response,
    Spelling,
    parse_expression,
)

__all__ = [
    "FunctionTransform",
    "UnknownName",
    "factory_of",
    "get_transform",
    "list_transforms",
    "origin_of",
    "register_builtin",
    "register_transform",
]

Op = Callable[[Tensor], Tensor]
TransformClass = TypeVar("TransformClass", bound=type[Transform])

_FACTORIES: dict[str, Callable[..., Transform]] = {}
_BUILTIN_GROUPS: dict[str, str] = {}
_PLUGIN_PACKAGES: dict[str, str] = {}
_RESPONSES: dict[str, Callable[..., ChannelResponse]] = {
    "SignFlips": SignFlips,
    "ChannelPermutation": ChannelPermutation,
}


class UnknownName(InputError):
    """No transform of that name is registered; `word` is the name."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unknown transform {word!r}.{did_you_mean(word, list_transforms())}")
        self.word = word


class FunctionTransform(Transform):
    """A transform made of two functions, as `register_transform(name, pixel=f, latent=g)` builds it.

    Args:
        name: its name.
        pixel: `T`, from `(..., H, W)` to `(..., H', W')`.
        latent: `ρ`, from `(..., h, w)` to `(..., h', w')`.
        inverse: the name of the transform that undoes it (its own for an involution), or `None`.
        mask: from an image to a bool tensor `(H', W')`, or `None`.
        swaps_axes: whether height and width are exchanged.
    """

    def __init__(
        self,
        name: str,
        pixel: Op,
        latent: Op,
        inverse: str | None = None,
        mask: Op | None = None,
        swaps_axes: bool = False,
    ) -> None:
        self.name = name
        self.swaps_axes = swaps_axes
        self._pixel, self._latent, self._inverse, self._mask = pixel, latent, inverse, mask

    def pixel(self, x: Tensor) -> Tensor:
        return self._pixel(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._latent(z)

    @property
    def inverse(self) -> Transform:
        if self._inverse is None:
            return super().inverse
        return self if self._inverse == self.name else get_transform(self._inverse)

    def mask(self, x: Tensor) -> Tensor | None:
        return None if self._mask is None else self._mask(x)

    def _does(self) -> Mapping[str, Any]:
        # An involution names itself; under another name it is one as well.
        inverse = "itself" if self._inverse == self.name else self._inverse
        return {**super()._does(), "_inverse": inverse}


@overload
def register_transform(
    name: str, *, override: bool = ...
) -> Callable[[TransformClass], TransformClass]: ...


@overload
def register_transform(
    name: str,
    *,
    pixel: Op,
    latent: Op,
    inverse: str | None = ...,
    mask: Op | None = ...,
    swaps_axes: bool = ...,
    override: bool = ...,
) -> Transform: ...


def register_transform(
    name: str,
    *,
    pixel: Op | None = None,
    latent: Op | None = None,
    inverse: str | None = None,
    mask: Op | None = None,
    swaps_axes: bool = False,
    override: bool = False,
) -> Any:
    """Make a transform known by a name: as a class decorator, or by a call with two functions.

    Args:
        name: lower-case letters, digits and underscores, as it is written in `--transforms`.
        pixel: the pixel op `T` on `(..., H, W)` (call form).
        latent: the latent op `ρ` on `(..., h, w)` (call form).
        inverse: the name of the inverse transform; its own name for an involution.
        mask: gives the validity mask `(H', W')` for an image, where `T` does not determine every pixel.
        swaps_axes: whether both ops exchange height and width.
        override: replace a transform that has this name already.

    Returns the class (decorator) or the transform (call). Raises `InputError` for a name that is
    malformed or taken, or when only one of the two functions is given.

    ```python
    import torch

    import equivae


    def channel_signs(z):
        return z * z.new_tensor([1.0, -1.0, 1.0, 1.0]).view(4, 1, 1)


    t = equivae.register_transform(
        "hflip_sign",
        pixel=lambda x: x.flip(-1),
        latent=lambda z: channel_signs(z.flip(-1)),
        inverse="hflip_sign",
    )
    z = torch.randn(1, 4, 8, 8)
    assert t.inverse.latent(t.latent(z)).equal(z)
    ```
    """
    if not NAME.fullmatch(name):
        raise InputError(f"transform name {name!r} cannot be used: {NAME_RULE}, as in 'my_flip'.")
    if name in _FACTORIES and not override:
        raise InputError(
            f"a transform named {name!r} is registered already; choose another name, or pass "
            "override=True to replace it."
        )
    if (pixel is None) != (latent is None):
        given, missing = ("pixel", "latent") if latent is None else ("latent", "pixel")
        raise InputError(
            f"transform {name!r} was given a {given} op without a {missing} op; a transform is the "
            "pair, so pass both."
        )
    if pixel is not None and latent is not None:
        transform = FunctionTransform(name, pixel, latent, inverse, mask, swaps_axes)

        def the_transform() -> Transform:
            return transform

        the_transform.__module__ = pixel.__module__
        _know(name, the_transform)
        return transform

    def decorator(cls: TransformClass) -> TransformClass:
        if not (isinstance(cls, type) and issubclass(cls, Transform)):
            raise InputError(
                f"register_transform({name!r}) decorates subclasses of equivae.Transform; "
                f"{cls!r} is none. For two functions call "
                f"register_transform({name!r}, pixel=f, latent=g)."
            )
        # A name inherited from another transform is not this one's own.
        if not vars(cls).get("name") and isinstance(cls.name, str):
            cls.name = name
        _know(name, cls)
        return cls

    return decorator


def _know(name: str, factory: Callable[..., Transform]) -> None:
    _FACTORIES[name] = factory
    _BUILTIN_GROUPS.pop(name, None)
    _PLUGIN_PACKAGES.pop(name, None)


def get_transform(name: str, **parameters: Any) -> Transform:
    """The transform registered as `name`, built with the given parameters.

    The parameters may stand in the name too: `get_transform("scale(factor=0.5)")`. So may compositions
    (`"rot90@hflip"`, the right one first), channel responses (`"hflip+SignFlips(channels=(0,))"`) and
    `"inverse(...)"`: `get_transform(t.name)` is equal to `t`. Transforms of installed plugins (entry
    points `equivae.transforms`) are known by their names.

    Raises `InputError` for an unknown name (with the nearest known ones), for parameters that the
    transform does not take, and for a name that does not say all: that of drawn parameters, or of a
    module as a response.

    ```python
    t = equivae.get_transform("rot180")
    assert t.inverse == t
    assert equivae.get_transform("rotate", angle=30).name == "rotate(angle=30)"
    both = t @ equivae.get_transform("shift", y=1, x=0)
    assert equivae.get_transform(both.name) == both
    ```
    """
    if not isinstance(name, str):
        raise InputError(f"the name of a transform is a text such as 'rot180', got {name!r}.")
    if name.strip() in _FACTORIES:
        return _build(Call(name.strip(), parameters))
    # A word that is no Python identifier is one all the same: a plugin may have it.
    plain = re.fullmatch(r"[^@+()<>]*", name)
    spelled = Call(name.strip()) if plain else parse_expression(name)
    if isinstance(spelled, Call):
        return _build(Call(spelled.word, spelled.parameters | parameters))
    if parameters:
        raise InputError(
            f"{name!r} is made of several transforms, so that {next(iter(parameters))!r} could be a "
            "parameter of any; write it into the name, as in 'scale(factor=0.5)@rot90'."
        )
    return _composed(spelled)


def _composed(spelled: Spelling) -> Transform:
    if isinstance(spelled, Product):
        return _composed(spelled.outer) @ _composed(spelled.inner)
    if isinstance(spelled, Inverse):
        return _composed(spelled.of).inverse
    if isinstance(spelled, Response):
        return _composed(spelled.grid).with_representation(_response(spelled.response))
    return _build(spelled)


def _build(call: Call) -> Transform:
    word = call.word
    if word not in _FACTORIES:
        _ensure_plugins()
    if word not in _FACTORIES:
        raise UnknownName(word)
    try:
        return _FACTORIES[word](**call.parameters)
    except TypeError as error:
        raise InputError(f"transform {word!r} cannot be built: {error}") from error


def _response(call: Call) -> ChannelResponse:
    if call.word not in _RESPONSES:
        raise InputError(
            f"the channel response {call.word!r} cannot be read from a name, which does not hold what it "
            f"does; only {' and '.join(_RESPONSES)} can. Pass the transform itself."
        )
    try:
        return _RESPONSES[call.word](**call.parameters)
    except TypeError as error:
        raise InputError(f"channel response {call.word!r} cannot be built: {error}") from error


def list_transforms() -> list[str]:
    """The names of all registered transforms, in natural order.

    ```python
    assert {"hflip", "rot90", "rot180", "scale"} <= set(equivae.list_transforms())
    ```
    """
    _ensure_plugins()

    def natural(name: str) -> list[str]:
        return [part.zfill(8) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(_FACTORIES, key=natural)


def factory_of(name: str) -> Callable[..., Transform]:
    """What builds a registered transform: a class or a function."""
    return _FACTORIES[name]


def origin_of(name: str) -> tuple[str, str]:
    """The group of a registered transform, and where it comes from: `equivae`, a package, a module."""
    if name in _BUILTIN_GROUPS:
        return _BUILTIN_GROUPS[name], "equivae"
    if name in _PLUGIN_PACKAGES:
        return "plugin", _PLUGIN_PACKAGES[name]
    return "custom", str(getattr(_FACTORIES[name], "__module__", "unknown"))


def register_builtin(name: str, factory: Callable[..., Transform], group: str) -> None:
    """Make one of the library's own transforms known."""
    _FACTORIES[name] = factory
    _BUILTIN_GROUPS[name] = group


def _ensure_plugins() -> None:
    for plugin in load_plugins(_FACTORIES.keys()):
        _FACTORIES[plugin.name] = plugin.factory
        _PLUGIN_PACKAGES[plugin.name] = plugin.package

"""A fitted operator as a transform: used, saved, loaded, registered and inverted like any other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError
from equivae.files.writing import bounded_name, check_name, child
from equivae.latent_scaling import (
    LatentScaling,
    apply_scaled,
    scaling_asked,
)
from equivae.operators.conjugation import ConjugatedOperator
from equivae.operators.fingerprint import Fingerprint, check_vae
from equivae.operators.format import MAPS, VERSION, read_op, undoing
from equivae.operators.hub import fetch_latent_op
from equivae.operators.modules import ConvOperator, LatentOperator
from equivae.operators.report import FitReport
from equivae.operators.representation import plain_move
from equivae.operators.writing import SCALING, check_finite, write_op
from equivae.options import check_path
from equivae.transforms import (
    ComposedTransform,
    Transform,
    get_transform,
    register_transform,
)

__all__ = [
    "FittedTransform",
    "default_name",
    "is_involution",
    "load_latent_op",
    "operators_of",
    "save_operators",
]

_LAYOUTS = {1: "audio", 2: "image", 3: "video"}  # by the axes of the grid that an operator takes


class FittedTransform(Transform):
    r"""A transform whose latent op moves the cells and then maps their channels by a fitted op.

    .. math:: \rho(z) = W * S(z) + b

    An operator that moves the grid itself, as those of resampled transforms, is given `z` instead of `S(z)`.
    Whatever the base is, a fitted transform is not `exact`: it computes values.

    Args:
        base: gives the pixel op `T`, the plain latent op `S` and the mask.
        operator: the map that follows the plain latent op.
        inverse_operator: the same for the inverse; `operator` itself for an involution.
        name: its name in reports, which becomes that of a folder: no slashes, no dot in front.
        report: how it was fitted and how well it fits.
        vae: the fingerprint of the VAE that it was fitted to.

    The operators' weights are parameters of `module`; they are frozen unless `finetune` is asked to train
    them along (`train_operator=True`).

    ```python
    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    t = equivae.fit_latent_op(vae, "rot90", images, kernel_size=3, progress=False)
    z = equivae.Autoencoder(vae).encode(images)
    assert t.latent(z).shape == z.shape
    assert t.inverse.name == "rot90_fitted_inverse"
    report = equivae.evaluate(vae, images, transforms=["rot90", t], progress=False)
    ```
    """

    exact = False

    def __init__(
        self,
        base: Transform,
        operator: LatentOperator,
        inverse_operator: LatentOperator | None = None,
        name: str | None = None,
        report: FitReport | None = None,
        vae: Fingerprint | None = None,
    ) -> None:
        self.base, self.operator, self.inverse_operator = base, operator, inverse_operator
        self.name = check_name("the name of a fitted transform", name or default_name(base))
        self.report, self.vae = report, vae
        self.swaps_axes, self.mixes_samples = base.swaps_axes, base.mixes_samples
        self.block = base.block
        self.layouts = tuple(one for one in base.layouts if one == _LAYOUTS[len(operator.kernel)])

    @property
    def module(self) -> nn.ModuleDict:
        """The operators as one module, for optimisers and for moving them to a device."""
        parts: dict[str, nn.Module] = {"forward": self.operator}
        if self._inverse_kind == "own":
            assert self.inverse_operator is not None
            parts["inverse"] = self.inverse_operator
        return nn.ModuleDict({f"{name}_operator": part for name, part in parts.items()})

    def pixel(self, x: Tensor) -> Tensor:
        return self.base.pixel(x)

    def latent(self, z: Tensor, *, scaled: LatentScaling | float | bool | None = None) -> Tensor:
        """`ρ(z)` for latents `(B, c, *grid)` or one `(c, *grid)`.

        Args:
            z: latents as `encode` returns them, or scaled as `scaled` says.
            scaled: how they are scaled, `(z - shift) * factor / std`: a `LatentScaling`, its factor alone, or
                `True` for the numbers that the op's file has of its VAE. No VAE is needed.

        Raises `InputError` where the file has no such numbers, and for another number of channels.
        """
        if scaled is not None and scaled is not False:
            own = None if self.vae is None else self.vae.scaling
            scaling = scaling_asked(scaled, own, self.name)
            return apply_scaled(self.latent, z, scaling, len(self.operator.kernel))
        moved: Tensor = self.operator(z if self.operator.moves_grid else self.base.latent(z))
        return moved

    @property
    def inverse(self) -> Transform:
        if self.inverse_operator is None:
            return super().inverse
        if self.inverse_operator is self.operator and is_involution(self.base):
            return self
        suffix = "_inverse"
        name = self.name.removesuffix(suffix) if self.name.endswith(suffix) else self.name + suffix
        return FittedTransform(
            self.base.inverse, self.inverse_operator, self.operator, name, self.report, self.vae
        )

    def mask(self, x: Tensor) -> Tensor | None:
        return self.base.mask(x)

    def at_factor(self, factor: int, time_factor: int | None = None) -> FittedTransform:
        placed = self.base.at_factor(factor, time_factor)
        return self if placed is self.base else self._like(placed, self.name)

    def named(self, name: str) -> FittedTransform:
        """The same under another name."""
        return self._like(self.base, name)

    def _like(self, base: Transform, name: str) -> FittedTransform:
        return FittedTransform(
            base, self.operator, self.inverse_operator, name, self.report, self.vae
        )

    def check_vae(self, vae: nn.Module | Autoencoder, *, strict: bool = False) -> None:
        """Warn, or with `strict` raise `InputError`, when it was fitted to the latents of another VAE."""
        check_vae(self.name, self.vae, vae, strict)

    def _does(self) -> Mapping[str, Any]:
        # The report and the fingerprint say how it was found, not what it does.
        return {k: v for k, v in super()._does().items() if k not in ("report", "vae")}

    def register(self, name: str | None = None, *, override: bool = False) -> FittedTransform:
        """Make it known to `get_transform`, the losses and the command line by its name or another.

        Returns the registered transform. Raises `InputError` for a name that is malformed or taken.
        """
        name = name or self.name
        fitted = self.named(name)

        class Registered(FittedTransform):
            # The registry builds transforms from classes; this one hands out the fitted transform.
            def __new__(cls) -> FittedTransform:  # type: ignore[misc]
                return fitted

        register_transform(name, override=override)(Registered)
        return fitted

    def check_finite(self) -> None:
        """Raises `InputError` for weights that are NaN or infinite: a fit that diverged."""
        check_finite(self.name, self.module)

    def save(self, folder: str | Path) -> Path:
        """Write `latent_op.safetensors` into a folder; `load_latent_op` reads it.

        Its metadata hold a JSON header, so that `equivae.operators.runtime` and other programs need nothing
        but this one file. Raises `InputError` for weights that are NaN or infinite.
        """
        return write_op(folder, self.name, self.module, self.header())

    @property
    def _inverse_kind(self) -> str:
        """Where the inverse operator comes from, in the words of the file's header."""
        forward, inverse = self.operator, self.inverse_operator
        if inverse is None:
            return "none"
        if inverse is forward:
            return "same"
        both = (forward, inverse)
        maps = [one.map for one in both if isinstance(one, ConjugatedOperator)]
        return "derived" if len(maps) == 2 and maps[0] is maps[1] else "own"

    def header(self) -> dict[str, Any]:
        """What its file says of it, of JSON types."""
        operators = {
            key: part.config()
            for key, part in self.module.items()
            if isinstance(part, LatentOperator)
        }
        first = self.operator
        return {
            "version": VERSION,
            "name": self.name,
            "transform": self.base.name,
            "kind": first.kind,
            "channels": first.channels,
            "kernel": list(first.kernel),
            "padding": first.padding if isinstance(first, ConvOperator) else "zeros",
            "factor": None if self.vae is None else self.vae.factor,
            "scaling": SCALING,
            "vae": None if self.vae is None else self.vae.to_dict(),
            "move": plain_move(self.base),
            "inverse_move": None
            if self.inverse_operator is None
            else plain_move(self.base.inverse),
            "inverse": self._inverse_kind,
            "operators": operators,
            "report": None if self.report is None else self.report.to_dict(),
        }


def load_latent_op(
    folder: str | Path,
    transform: Transform | None = None,
    *,
    vae: nn.Module | Autoencoder | None = None,
    strict: bool = False,
) -> FittedTransform:
    """The transform that `FittedTransform.save` wrote.

    Args:
        folder: where it lies: a folder, the file itself, or a name on the hub, `"user/repo"`. Folders that
            version 0.1 wrote are read too.
        transform: what it was fitted for. By default the registered transform of the saved name, or the
            composition for a name such as `"rot90@hflip"`.
        vae: the VAE that it is to be used with. There is a warning when it was fitted to another's latents.
        strict: refuse instead of warning; needs `vae`.

    Raises `InputError` when there is none, when it is cut, when its transform is not registered here, and
    with `strict` when it was fitted to another VAE.

    ```python
    import equivae

    vae = equivae.zoo.load()
    t = equivae.fit_latent_op(
        vae, "hflip", equivae.data.dead_leaves(4, size=64), kernel_size=1, progress=False
    )
    t.save("hflip_op")
    assert equivae.load_latent_op("hflip_op", vae=vae, strict=True).name == t.name
    ```
    """
    if strict and vae is None:
        raise InputError("strict=True compares the VAE with the one fitted to; pass it as `vae`.")
    check_path("the folder of a latent op", folder)
    header, operators = read_op(fetch_latent_op(folder))
    if header.get("kind") in MAPS:
        raise InputError(
            f"{folder} holds no transform but a {header['kind']} of latents; load it with "
            f"equivae.operators.{MAPS[header['kind']]}.load."
        )
    forward = operators["forward_operator"]
    base = _named(header["transform"]) if transform is None else transform
    try:
        report = None if header.get("report") is None else FitReport(**header["report"])
    except TypeError as error:
        raise InputError(f"the report of the latent op in {folder} is broken: {error}.") from error
    made = FittedTransform(
        base,
        forward,
        undoing(header, operators),
        header["name"],
        report,
        Fingerprint.read(header.get("vae")),
    )
    if vae is not None:
        made.check_vae(vae, strict=strict)
    return made


def default_name(base: Transform) -> str:
    """`rot180_fitted`, in the letters that the registry allows; -1 is `minus1`, since 1 is another."""
    signed = re.sub(r"(?<![\w.])-(?=[\d.])", "minus", base.name.lower())
    return bounded_name(re.sub(r"[^a-z0-9_]+", "_", signed).strip("_")) + "_fitted"


def is_involution(transform: Transform) -> bool:
    """Whether it is its own inverse."""
    try:
        return transform.inverse == transform
    except NotImplementedError:
        return False


def _named(name: str) -> Transform:
    try:
        return get_transform(name)
    except InputError as error:
        raise InputError(
            f"the operator was fitted for transform {name!r}, which is not registered here; register it "
            f"first or pass it as `transform`. ({error})"
        ) from error


def inverse_consistency(transform: Transform, latents: Tensor) -> float | None:
    """`‖ρ⁻¹ ρ z - z‖ / ‖z‖`, or `None` for a transform without an inverse."""
    try:
        inverse = transform.inverse
    except NotImplementedError:
        return None
    with torch.no_grad():
        back = inverse.latent(transform.latent(latents)).float()
    return float((back - latents.float()).norm() / latents.float().norm())


def operators_of(transforms: Iterable[Transform]) -> list[LatentOperator]:
    """The operators that the latent ops of transforms, compositions included, apply; each once."""
    found: dict[int, LatentOperator] = {}
    for fitted in _fitted_parts(transforms):
        found[id(fitted.operator)] = fitted.operator
    return list(found.values())


def save_operators(transforms: Iterable[Transform], folder: Path) -> None:
    """Save every fitted transform in `transforms` under its name."""
    for fitted in _fitted_parts(transforms):
        fitted.save(child(folder, fitted.name))


def _fitted_parts(transforms: Iterable[Transform]) -> Iterator[FittedTransform]:
    for transform in transforms:
        if isinstance(transform, FittedTransform):
            yield transform
        elif isinstance(transform, ComposedTransform):
            yield from _fitted_parts((transform.inner, transform.outer))
        else:  # a fitted family, or a choice of fitted transforms
            yield from _fitted_parts(getattr(transform, "members", ()))

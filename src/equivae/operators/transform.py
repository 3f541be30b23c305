"""A fitted operator as a transform: used, saved, loaded, registered and inverted like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.files.writing import bounded_name, check_name, check_output, child, write_beside
from equivae.operators.hub import fetch_latent_op
from equivae.operators.modules import LatentOperator, build_operator
from equivae.operators.report import FitReport
from equivae.options import check_path
from equivae.transforms import ComposedTransform, Transform, get_transform, register_transform

__all__ = [
    "FittedTransform",
    "default_name",
    "is_involution",
    "load_latent_op",
    "operators_of",
    "save_operators",
]

_SCHEMA = 1
_WEIGHTS, _CONFIG = "latent_op.safetensors", "latent_op.json"


class FittedTransform(Transform):
    r"""A transform whose latent op is a grid move and then a fitted map of the channels.

    .. math:: \rho(z) = W * S(z) + b

    Args:
        base: gives the pixel op `T`, the grid move `S` and the mask.
        operator: the map that follows the grid move.
        inverse_operator: the one that follows the inverse grid move; `operator` itself for an involution.
        name: its name in reports, which becomes that of a folder: no slashes, no dot in front.
        report: how it was fitted and how well it fits.

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

    def __init__(
        self,
        base: Transform,
        operator: LatentOperator,
        inverse_operator: LatentOperator | None = None,
        name: str | None = None,
        report: FitReport | None = None,
    ) -> None:
        self.base, self.operator, self.inverse_operator = base, operator, inverse_operator
        self.name = check_name("the name of a fitted transform", name or default_name(base))
        self.report = report
        self.swaps_axes, self.exact, self.layouts = base.swaps_axes, base.exact, base.layouts
        self.mixes_samples = base.mixes_samples

    @property
    def module(self) -> nn.ModuleDict:
        """The operators as one module, for optimisers and for moving them to a device."""
        parts: dict[str, nn.Module] = {"forward": self.operator}
        if self.inverse_operator is not None and self.inverse_operator is not self.operator:
            parts["inverse"] = self.inverse_operator
        return nn.ModuleDict({f"{name}_operator": part for name, part in parts.items()})

    def pixel(self, x: Tensor) -> Tensor:
        return self.base.pixel(x)

    def latent(self, z: Tensor) -> Tensor:
        moved: Tensor = self.operator(self.base.latent(z))
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
            self.base.inverse, self.inverse_operator, self.operator, name, self.report
        )

    def mask(self, x: Tensor) -> Tensor | None:
        return self.base.mask(x)

    def at_factor(self, factor: int, time_factor: int | None = None) -> FittedTransform:
        placed = self.base.at_factor(factor, time_factor)
        if placed is self.base:
            return self
        return FittedTransform(placed, self.operator, self.inverse_operator, self.name, self.report)

    def _does(self) -> Mapping[str, Any]:
        # The report says how it was found, not what it does.
        return {key: value for key, value in super()._does().items() if key != "report"}

    def register(self, name: str | None = None, *, override: bool = False) -> FittedTransform:
        """Make it known to `get_transform`, the losses and the command line by its name or another.

        Returns the registered transform. Raises `InputError` for a name that is malformed or taken.
        """
        name = name or self.name
        fitted = FittedTransform(self.base, self.operator, self.inverse_operator, name, self.report)

        class Registered(FittedTransform):
            # The registry builds transforms from classes; this one hands out the fitted transform.
            def __new__(cls) -> FittedTransform:  # type: ignore[misc]
                return fitted

        register_transform(name, override=override)(Registered)
        return fitted

    def check_finite(self) -> None:
        """Raises `InputError` for weights that are NaN or infinite: a fit that diverged."""
        for name, weight in self.module.state_dict().items():
            if not weight.isfinite().all():
                raise InputError(
                    f"the latent op {self.name!r} holds NaN or infinite values in {name}, so its fit "
                    "diverged: check that the VAE encodes these images to finite values, or pass a larger "
                    "ridge."
                )

    def save(self, folder: str | Path) -> Path:
        """Write `latent_op.safetensors` and `latent_op.json` into a folder; `load_latent_op` reads them.

        Raises `InputError` for weights that are NaN or infinite.
        """
        self.check_finite()
        folder = Path(folder)
        check_output("output folder", folder)
        folder.mkdir(parents=True, exist_ok=True)
        module = self.module
        weights = {key: value.detach().cpu() for key, value in module.state_dict().items()}
        content = {
            "schema": _SCHEMA,
            "name": self.name,
            "transform": self.base.name,
            "operators": {
                key: part.config()
                for key, part in module.items()
                if isinstance(part, LatentOperator)
            },
            "inverse": {True: "same", False: "own"}[self.inverse_operator is self.operator]
            if self.inverse_operator is not None
            else "none",
            "report": None if self.report is None else self.report.to_dict(),
        }
        text = json.dumps(content, indent=1) + "\n"
        write_beside(folder / _WEIGHTS, lambda path: save_file(weights, path))
        write_beside(folder / _CONFIG, lambda path: _write(path, text))
        return folder


def load_latent_op(folder: str | Path, transform: Transform | None = None) -> FittedTransform:
    """The transform that `FittedTransform.save` wrote.

    Args:
        folder: where it lies: a folder, or its name on the hub, `"user/repo"`.
        transform: what it was fitted for. By default the registered transform of the saved name, or the
            composition for a name such as `"rot90@hflip"`.

    Raises `InputError` when the folder holds none, or its transform is not registered here.

    ```python
    import equivae

    t = equivae.fit_latent_op(
        equivae.zoo.load(), "hflip", equivae.data.dead_leaves(4, size=64), kernel_size=1, progress=False
    )
    t.save("hflip_op")
    assert equivae.load_latent_op("hflip_op").name == t.name
    ```
    """
    check_path("the folder of a latent op", folder)
    folder = fetch_latent_op(folder)
    missing = [name for name in (_WEIGHTS, _CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds no latent operator: {' and '.join(missing)} missing; pass a folder that "
            "FittedTransform.save wrote."
        )
    content = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if content.get("schema") != _SCHEMA:
        raise InputError(
            f"{folder / _CONFIG} has schema {content.get('schema')!r}, this version reads {_SCHEMA}."
        )
    operators = {key: build_operator(config) for key, config in content["operators"].items()}
    try:
        nn.ModuleDict(operators).load_state_dict(load_file(folder / _WEIGHTS))
    except Exception as error:
        raise InputError(f"{folder / _WEIGHTS} does not fit {_CONFIG}: {error}") from error
    forward = operators["forward_operator"]
    inverse = {"same": forward, "own": operators.get("inverse_operator"), "none": None}
    base = _named(content["transform"]) if transform is None else transform
    report = None if content["report"] is None else FitReport(**content["report"])
    return FittedTransform(base, forward, inverse[content["inverse"]], content["name"], report)


def default_name(base: Transform) -> str:
    """`rot180_fitted`, in the letters that the registry allows."""
    return bounded_name(re.sub(r"[^a-z0-9_]+", "_", base.name.lower()).strip("_")) + "_fitted"


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


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


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

"""The nodes, and where their files lie in ComfyUI."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .belonging import check_power, check_vae, factor_of, fingerprint
from .description import LATENT_OP, In, Node, Out
from .fitting import CHOICES, fit_op
from .latent_op import LatentOp, apply_to_latent, load_op, save_op
from .report import round_trip_report
from .symmetrize import SymmetrizedVAE

__all__ = ["NODES", "op_folder"]

_NONE = "(none)"


def op_folder() -> Path:
    """`ComfyUI/models/latent_ops`, or the folder of that name here."""
    try:
        import folder_paths
    except ImportError:
        return Path("latent_ops")
    return Path(folder_paths.models_dir) / "latent_ops"


def _saved() -> list[str]:
    folder = op_folder()
    found = folder.glob("*/latent_op.safetensors") if folder.is_dir() else ()
    return sorted(path.parent.name for path in found) or [_NONE]


def _load(name: str, path: str = "") -> tuple[LatentOp]:
    if path.strip():
        return (load_op(path.strip()),)
    if name == _NONE:
        raise ValueError(
            f"There is no latent op in {op_folder()} yet: copy a folder of `equivae fit` there, use Fit "
            "Latent Op, or type "
            "a path."
        )
    return (load_op(op_folder() / _checked(name)),)


def _apply(
    samples: dict[str, Any], latent_op: LatentOp, inverse: bool = False, vae: Any = None
) -> tuple[Any]:
    if vae is not None:
        check_vae(latent_op, vae)
    elif isinstance(samples.get("samples"), Tensor):
        check_power(latent_op, samples["samples"])
    return (apply_to_latent(samples, latent_op.inverse if inverse else latent_op),)


def _fit(
    vae: Any,
    images: Any,
    transform: str,
    kernel_size: int = 5,
    amount: float = 0.5,
    save_as: str = "",
) -> tuple[LatentOp, str]:
    name = save_as.strip()
    if name:
        _checked(name)
    op = fit_op(vae, images[..., :3], transform, kernel_size, amount)
    if op.kernel is not None:
        op = replace(op, vae=fingerprint(vae, factor_of(vae, images)))
    if op.kernel is None:
        logging.warning("equivae: %s", op.report)
    elif name:
        save_op(op, op_folder() / name)
    return op, op.report


def _symmetrize(vae: Any, latent_op: LatentOp, seam: int = 16) -> tuple[Any]:
    check_vae(latent_op, vae)
    return (SymmetrizedVAE(vae, latent_op, seam),)


def _report(vae: Any, images: Any, latent_op: LatentOp, amount: float = 0.5) -> tuple[str, Any]:
    check_vae(latent_op, vae)
    return round_trip_report(vae, images, latent_op, amount)


def _checked(name: str) -> str:
    """A name that stays in its folder, whatever a workflow says."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"{name!r} is no name for a latent op; use letters, digits, '_', '-' and '.'."
        )
    return name


_OP = In("latent_op", LATENT_OP, "From Load Latent Op or Fit Latent Op.")
_VAE = In("vae", "VAE", "The VAE that made the latents.")
_AMOUNT = In(
    "amount",
    "FLOAT",
    "For brightness and saturation: what they are multiplied by.",
    default=0.5,
    low=0.0,
    high=2.0,
    step=0.05,
)

NODES = (
    Node(
        "EquivaeLoadLatentOp",
        "Load Latent Op",
        "Load a fitted latent op from models/latent_ops, or from a path.",
        (
            In("name", "COMBO", "A folder in models/latent_ops.", options=_saved),
            In(
                "path",
                "STRING",
                "Instead of it, any folder that `equivae fit` wrote.",
                default="",
                optional=True,
            ),
        ),
        (Out("latent_op", LATENT_OP),),
        _load,
    ),
    Node(
        "EquivaeApplyLatentOp",
        "Apply Latent Op",
        "Flip, turn, scale or recolour a latent so that it decodes to the flipped, turned, scaled or "
        "recoloured image. The "
        "mask goes along.",
        (
            In("samples", "LATENT", "Images or video."),
            _OP,
            In("inverse", "BOOLEAN", "Undo it instead.", default=False),
            In("vae", "VAE", "Checks that the op was fitted for this VAE.", optional=True),
        ),
        (Out("samples", "LATENT"),),
        _apply,
    ),
    Node(
        "EquivaeFitLatentOp",
        "Fit Latent Op",
        "Fit a latent op for a VAE in closed form, in seconds, from some images. The VAE stays as it is.",
        (
            _VAE,
            In("images", "IMAGE", "Two or more, better 8 or 16, such as you work on."),
            In(
                "transform",
                "COMBO",
                "Turns are counter-clockwise: rot90 is what Rotate Latent calls 270 degrees.",
                default="hflip",
                options=CHOICES,
            ),
            In("kernel_size", "INT", "Latent cells, odd.", default=5, low=1, high=9, step=2),
            _AMOUNT,
            In(
                "save_as",
                "STRING",
                "A name in models/latent_ops; empty to keep it in this workflow.",
                default="",
            ),
        ),
        (Out("latent_op", LATENT_OP), Out("report", "STRING")),
        _fit,
    ),
    Node(
        "EquivaeSymmetrizeVAE",
        "Symmetrize VAE",
        "A VAE for which ComfyUI's own Flip Latent is exactly right: decode(flip(z)) is flip(decode(z)), "
        "and encode "
        "likewise. Costs twice the time; its latents are its own.",
        (
            _VAE,
            In("latent_op", LATENT_OP, "For hflip, vflip or rot180 (rotate by 180 degrees)."),
            In(
                "seam",
                "INT",
                "Width in pixels of the ramp between the halves.",
                default=16,
                low=0,
                high=64,
                step=2,
            ),
        ),
        (Out("vae", "VAE"),),
        _symmetrize,
    ),
    Node(
        "EquivaeRoundTripReport",
        "Latent Round-Trip Report",
        "What a latent op is worth: PSNR of decoded moved latents against moved images, beside the plain "
        "op and encoding "
        "again; and a picture: moved image, plain, latent op, encoded again.",
        (_VAE, In("images", "IMAGE", "Some images."), _OP, _AMOUNT),
        (Out("report", "STRING"), Out("comparison", "IMAGE")),
        _report,
    ),
)

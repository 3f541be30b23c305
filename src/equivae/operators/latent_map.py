"""The latents of one VAE told from those of another: what a fitted map is, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.autoencoder.latent_scaling import LatentScaling
from equivae.errors import InputError
from equivae.files.writing import check_name
from equivae.operators.fingerprint import Fingerprint, check_vae
from equivae.operators.format import VERSION, read_op
from equivae.operators.hub import fetch_latent_op
from equivae.operators.modules import LatentOperator
from equivae.operators.writing import SCALING, write_op

__all__ = ["LatentMap", "MapReport", "read_kind", "read_scaling", "wrapped"]


@dataclass(frozen=True)
class MapReport:
    """How a map of latents was fitted, and what it decodes to. All on held-out images.

    Attributes:
        kernel_size: cells along a side of the window, of the coarser grid.
        ridge: the chosen one, relative to the mean variance of an entry.
        images: how many, held-out ones included.
        held_out_images: how many chose the ridge and were decoded.
        cells: how many pairs of cells the equations hold.
        latent_error: `‖M E_a(x) - E_b(x)‖ / ‖E_b(x)‖`.
        mapped_psnr: PSNR in dB of `D_b(M E_a(x))` against `x`.
        reencoded_psnr: of `D_b(E_b(D_a(E_a(x))))`, what one does without a map.
        ceiling_psnr: of `D_b(E_b(x))`.
        seconds: what the fit took.
    """

    kernel_size: int
    ridge: float
    images: int
    held_out_images: int
    cells: int
    latent_error: float
    mapped_psnr: float
    reencoded_psnr: float
    ceiling_psnr: float
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return asdict(self)

    def to_markdown(self) -> str:
        """One line for the fit, and a table of what the map decodes to."""
        return (
            f"kernel {self.kernel_size}, {self.images} images, {self.seconds:.0f} s; latent error "
            f"{self.latent_error:.3f}.\n\n"
            "| on held-out images | PSNR |\n|---|---|\n"
            f"| mapped | {self.mapped_psnr:.2f} dB |\n"
            f"| decoded and encoded again | {self.reencoded_psnr:.2f} dB |\n"
            f"| encoded by the target (ceiling) | {self.ceiling_psnr:.2f} dB |\n"
        )


class LatentMap:
    r"""Takes latents of one VAE to those of another, in one small linear map; see `fit_latent_map`.

    Args:
        operator: the map, of unscaled latents.
        name: its name.
        source: the fingerprint of the VAE whose latents it takes.
        target: that of the VAE whose latents it gives.
        scalings: how pipelines scale the latents of both; `None` for one that numbers cannot tell.
        report: how it was fitted and how well it fits.

    ```python
    import equivae

    a, b = equivae.zoo.load(), equivae.zoo.load()
    op = equivae.fit_latent_map(a, b, equivae.data.dead_leaves(6, size=64), progress=False)
    op.save("a_to_b")
    again = equivae.operators.LatentMap.load("a_to_b")
    assert again.report == op.report
    ```
    """

    kind = "map"

    def __init__(
        self,
        operator: LatentOperator,
        name: str,
        source: Fingerprint,
        target: Fingerprint,
        scalings: tuple[LatentScaling | None, LatentScaling | None] = (None, None),
        report: MapReport | None = None,
    ) -> None:
        self.name = check_name("the name of a latent map", name)
        self.operator, self.source, self.target = operator, source, target
        self.scalings, self.report = scalings, report

    @torch.no_grad()
    def latent(self, z: Tensor, *, scaled: bool = False) -> Tensor:
        """Latents `(..., c', h', w')` of the target VAE, of latents `(..., c, h, w)` of the source VAE.

        Args:
            z: unscaled latents, as `encode` returns them.
            scaled: they are as the source's pipelines hold them, and so is the result for the target's.

        Raises `InputError` for another number of channels, for a grid that the ratio of the factors does not
        divide, and for `scaled` where a VAE's scaling cannot be told by numbers.
        """
        if not scaled:
            moved: Tensor = self.operator(z)
            return moved
        before, after = self.scalings
        if before is None or after is None:
            raise InputError(
                f"the latent map {self.name!r} does not know how the pipelines of both VAEs scale their "
                "latents; unscale them with equivae.unscale_latents and leave scaled=True out."
            )
        batch = z.unsqueeze(0) if z.ndim == 3 else z
        result = after.scale(self.operator(before.unscale(batch)))
        return result.squeeze(0) if z.ndim == 3 else result

    def check_vaes(
        self,
        source: nn.Module | Autoencoder | None = None,
        target: nn.Module | Autoencoder | None = None,
        *,
        strict: bool = False,
    ) -> None:
        """Warn, or with `strict` raise `InputError`, when a VAE is another than it was fitted to."""
        for fitted_to, vae in ((self.source, source), (self.target, target)):
            if vae is not None:
                check_vae(self.name, fitted_to, vae, strict)

    def save(self, folder: str | Path) -> Path:
        """Write `latent_op.safetensors` into a folder; `LatentMap.load` and the runtime read it."""
        header = {
            "source": self.source.to_dict(),
            "target": self.target.to_dict(),
            "factor": self.source.factor,
            "vae": self.source.to_dict(),
            "scalings": [None if one is None else asdict(one) for one in self.scalings],
            "report": None if self.report is None else self.report.to_dict(),
        }
        return write_op(folder, self.name, *wrapped(self.kind, self.name, self.operator, header))

    @classmethod
    def load(cls, folder: str | Path) -> LatentMap:
        """What `save` wrote: a folder, the file itself, or a name on the hub.

        Raises `InputError` when there is none, when it is cut, and for the op of a transform.
        """
        header, operator = read_kind(folder, cls.kind)
        try:
            source, target = (Fingerprint.read(header[key]) for key in ("source", "target"))
            before, after = (read_scaling(one) for one in header["scalings"])
            report = None if header["report"] is None else MapReport(**header["report"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the header of the latent map in {folder} is broken: {error}."
            ) from error
        if source is None or target is None:
            raise InputError(f"the header of the latent map in {folder} lacks a fingerprint.")
        return cls(operator, header["name"], source, target, (before, after), report)


def wrapped(
    kind: str, name: str, operator: LatentOperator, more: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The weights and the header of a file for what is not a transform's op."""
    header = {
        "version": VERSION,
        "name": name,
        "transform": "identity",
        "kind": kind,
        "channels": operator.takes,
        "kernel": list(operator.kernel),
        "padding": "zeros",
        "scaling": SCALING,
        "move": {},
        "inverse_move": None,
        "inverse": "none",
        "operators": {"forward_operator": operator.config()},
    }
    return nn.ModuleDict({"forward_operator": operator}), {**header, **more}


def read_kind(folder: str | Path, kind: str) -> tuple[dict[str, Any], LatentOperator]:
    """Header and operator of a file of a kind. `InputError` for one of another."""
    header, operators = read_op(fetch_latent_op(folder))
    if header.get("kind") != kind:
        raise InputError(
            f"{folder} holds no {kind} of latents but the latent op of {header['transform']!r}; load it "
            "with equivae.load_latent_op."
        )
    return header, operators["forward_operator"]


def read_scaling(content: dict[str, Any] | None) -> LatentScaling | None:
    """What `asdict` made of a scaling."""
    if content is None:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    return LatentScaling(**values)

"""`fit_preview`: what latents look like, without a decoder: three sums of their channels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from equivae.autoencoder import Autoencoder, at_top_level
from equivae.autoencoder.latent_scaling import LatentScaling
from equivae.autoencoder.scaling import scaling_of
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.operators.decoding import squared_error
from equivae.operators.fingerprint import Fingerprint, check_vae
from equivae.operators.latent_map import read_kind, read_scaling, wrapped
from equivae.operators.linear import solve_pairs, unfitted
from equivae.operators.maps import batches_of, encoded_by, split_of
from equivae.operators.options import FitOptions
from equivae.operators.phases import PhaseOperator
from equivae.operators.writing import write_op
from equivae.units import psnr

__all__ = ["LatentPreview", "PreviewReport", "fit_preview"]

_CALLBACK = """\
import torch
from PIL import Image

FACTORS = torch.tensor({factors})
BIAS = torch.tensor({bias})
previews = []


def preview(pipe, step, timestep, callback_kwargs):
    latents = callback_kwargs["latents"].detach().float().cpu()
    rgb = torch.einsum("bchw,cr->bhwr", latents, FACTORS) + BIAS
    pixels = rgb.add(1).mul(127.5).round().clamp(0, 255).byte().numpy()
    previews.append([Image.fromarray(one) for one in pixels])
    return callback_kwargs


# pipe(prompt, callback_on_step_end=preview, callback_on_step_end_tensor_inputs=["latents"])
"""


@dataclass(frozen=True)
class PreviewReport:
    """How a preview was fitted.

    Attributes:
        images: how many, held-out ones included.
        held_out_images: how many it was judged on.
        psnr: in dB, of the preview against the images averaged over the pixels of a cell, on those.
        ridge: the chosen one.
    """

    images: int
    held_out_images: int
    psnr: float
    ridge: float

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return asdict(self)


class LatentPreview:
    """A small picture of a latent, one pixel for a cell, from its channels alone; see `fit_preview`.

    Args:
        operator: from unscaled latents to images in [-1, 1], cell by cell.
        vae: the fingerprint of the VAE whose latents it takes.
        scaling: how pipelines scale them; `None` where numbers cannot tell.
        report: how well it fits.

    ```python
    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(6, size=64)
    preview = equivae.fit_preview(vae, images, progress=False)
    small = preview.image(equivae.Autoencoder(vae).encode(images))
    assert small.shape == (6, 3, *small.shape[2:])
    print(preview.to_comfyui())
    ```
    """

    kind = "preview"

    def __init__(
        self,
        operator: PhaseOperator,
        vae: Fingerprint,
        scaling: LatentScaling | None = None,
        report: PreviewReport | None = None,
    ) -> None:
        self.operator, self.vae, self.scaling, self.report = operator, vae, scaling, report

    @torch.no_grad()
    def image(self, z: Tensor, *, scaled: bool = False) -> Tensor:
        """Images `(..., 3, h, w)` in [-1, 1] of latents `(..., c, h, w)`.

        Args:
            z: unscaled latents, as `encode` returns them.
            scaled: they are as pipelines hold them.
        """
        if scaled:
            factors, bias = self.factors(scaled=True)
            rgb = torch.einsum("...chw,cr->...rhw", z, factors.to(z)) + bias.to(z).view(3, 1, 1)
            return rgb.clamp(-1, 1)
        return self.operator(z).clamp(-1, 1)  # type: ignore[no-any-return]

    def factors(self, *, scaled: bool = False) -> tuple[Tensor, Tensor]:
        """Three weights for every channel, `(c, 3)`, and the bias, `(3,)`.

        Raises `InputError` for `scaled` where the VAE's scaling cannot be told by numbers.
        """
        weight = self.operator.weight.detach().cpu().double()[0].T
        bias = self.operator.bias.detach().cpu().double()[0]
        if scaled:
            if self.scaling is None:
                raise InputError(
                    f"the pipelines of {self.vae.kind} do not scale its latents channel by channel, so that "
                    "its preview is one of unscaled latents; unscale them with equivae.unscale_latents."
                )
            zeros = torch.zeros(1, len(weight), 1, 1, dtype=torch.float64)
            low, high = (self.scaling.unscale(zeros + v).flatten() for v in (0, 1))
            weight, bias = weight * (high - low)[:, None], bias + low @ weight
        return weight.float(), bias.float()

    def to_comfyui(self) -> str:
        """`latent_rgb_factors` and their bias, as a `LatentFormat` of ComfyUI has them.

        ComfyUI shows latents as the sampler holds them, which is scaled.
        """
        factors, bias = (one.tolist() for one in self.factors(scaled=True))
        rows = "\n".join(f"    {_numbers(row)}," for row in factors)
        return f"latent_rgb_factors = [\n{rows}\n]\nlatent_rgb_factors_bias = {_numbers(bias)}\n"

    def to_diffusers(self) -> str:
        """A `callback_on_step_end` for diffusers' pipelines, which keeps a small picture of every step.

        For pipelines whose latents are `(B, c, h, w)`; packed ones have to be unpacked first.
        """
        factors, bias = (one.tolist() for one in self.factors(scaled=True))
        rows = ",\n".join(_numbers(row) for row in factors)
        listed = f"[\n{textwrap.indent(rows, '    ')},\n]"
        return _CALLBACK.format(factors=listed, bias=_numbers(bias))

    def check_vae(self, vae: nn.Module | Autoencoder, *, strict: bool = False) -> None:
        """Warn, or with `strict` raise `InputError`, when it was fitted to the latents of another VAE."""
        check_vae(f"{self.vae.kind} preview", self.vae, vae, strict)

    def save(self, folder: str | Path) -> Path:
        """Write `latent_op.safetensors` into a folder; `LatentPreview.load` and the runtime read it."""
        header = {
            "factor": self.vae.factor,
            "vae": self.vae.to_dict(),
            "scalings": [None if self.scaling is None else asdict(self.scaling)],
            "report": None if self.report is None else self.report.to_dict(),
        }
        return write_op(folder, "preview", *wrapped(self.kind, "preview", self.operator, header))

    @classmethod
    def load(cls, folder: str | Path) -> LatentPreview:
        """What `save` wrote. Raises `InputError` when there is none, or something else."""
        header, operator = read_kind(folder, cls.kind)
        try:
            vae, scaling = Fingerprint.read(header["vae"]), read_scaling(header["scalings"][0])
            report = None if header["report"] is None else PreviewReport(**header["report"])
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"the header of the preview in {folder} is broken: {error}."
            ) from error
        if vae is None or not isinstance(operator, PhaseOperator):
            raise InputError(f"the header of the preview in {folder} is broken.")
        return cls(operator, vae, scaling, report)


@at_top_level()
def fit_preview(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    *,
    ridge: float | None = None,
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    validation_split: float = 0.1,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> LatentPreview:
    """Fit the linear preview of a VAE's latents: red, green and blue as weighted sums of the channels.

    The target is the image averaged over the pixels of each latent cell. ComfyUI shows such previews while
    it samples, from factors that somebody fitted by hand; a VAE that was fine-tuned needs its own.

    Args:
        vae: a diffusers autoencoder of colour images or any module with the same calls, or where to load it.
        images: anything that `equivae.data.load_images` takes; a few dozen are enough.
        ridge: relative to the mean variance of a channel; by default the one that suits held-out images.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        validation_split: share of the images held out.
        eval_batch_size: images per call.
        seed: of the split.
        progress: show a progress bar.

    Returns a `LatentPreview`. Raises `InputError` for a VAE that is none of colour images, for fewer than
    two images and for images that it cannot take.

    ```python
    import equivae

    preview = equivae.fit_preview(
        equivae.zoo.load(), equivae.data.dead_leaves(8, size=64), progress=False
    )
    print(preview.report.psnr, preview.to_diffusers())
    ```
    """
    options = FitOptions(
        kernel_size=1,
        ridge=ridge,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        progress=progress,
    )
    view = Autoencoder(load_vae(vae))
    if view.layout != "image" or view.image_channels != 3:
        raise InputError(
            f"previews are fitted for VAEs of colour images, and {type(view.module).__name__} takes "
            f"{view.layout} of {view.image_channels} channels."
        )
    dataset = load_images(
        images,
        resolution=resolution,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    training, held_out = split_of(dataset, options)
    first = next(_pairs(view, dataset.subset([0]), 1, False))
    found = solve_pairs(
        unfitted(*first, 1, border=False, magnitude=False),
        _pairs(view, training, eval_batch_size, progress),
        _pairs(view, held_out, eval_batch_size, False),
        ridge,
    )
    scaling = scaling_of(view.module, view.latent_channels)
    made = LatentPreview(found.operator.to(view.device), Fingerprint.of(view), scaling)
    error = count = 0.0
    for z, small in _pairs(view, held_out, eval_batch_size, False):
        squares, values = squared_error(made.image(z), small, None)
        error, count = error + float(squares), count + values
    made.report = PreviewReport(len(dataset), len(held_out), psnr(error / count), found.ridge)
    return made


def _pairs(
    vae: Autoencoder, images: ImageDataset, batch_size: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    for x in batches_of(images, batch_size, vae, progress=progress):
        z = encoded_by(vae, x)
        yield z, avg_pool2d(x.to(z), vae.factor)


def _numbers(values: list[float]) -> str:
    return f"[{', '.join(f'{value:.4f}' for value in values)}]"

"""`analyze_latents`: how equivariant a VAE is already, of which kind, and what would help it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from equivae.autoencoder import Autoencoder, at_top_level
from equivae.data.sources import ImagesLike, load_images
from equivae.errors import InputError
from equivae.evaluation.responses import LatentResponses, TransformAnalysis, measure_responses
from equivae.files.pretrained import load_vae
from equivae.operators import FitOptions
from equivae.reporting.content import json_types, save_files
from equivae.reporting.tables import count_images, markdown_table, number
from equivae.reporting.text import markdown
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LatentAnalysis", "TransformAnalysis", "analyze_latents"]


@dataclass(frozen=True)
class LatentAnalysis(LatentResponses):
    """What `analyze_latents` found.

    Attributes:
        images: how many images, held-out ones included.
        reconstruction_psnr: of the held-out images that were decoded, in dB; the ceiling of the others.
        transforms: name to `TransformAnalysis`.
        latent_spectrum: mean energy of the latents' DCT by band, from the lowest to the highest frequency of
            8x8 blocks, relative to the whole without the constant.
        image_spectrum: the same of the images themselves, on their own grid.
        channel_deviations: standard deviation of every latent channel.
    """

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return {**asdict(self), "recommendation": self.recommendation}

    def to_markdown(self) -> str:
        """A table of errors and decoded PSNR, and the recommendations."""
        sizes = list(next(iter(self.transforms.values())).fitted_errors)
        head = ["transform", "plain", *(f"{k}x{k}" for k in sizes), "signs"]
        rows = []
        for name, found in self.transforms.items():
            cells = [_cell(found.grid_error, found.grid_psnr)]
            cells += [_cell(found.fitted_errors[k], found.fitted_psnr[k]) for k in sizes]
            signs = found.signature
            cells.append("" if signs is None else f"{signs.positive} +, {signs.negative} -")
            rows.append([name, *cells])
        lines = [
            "# Latent analysis",
            "",
            f"Relative latent error and decoded PSNR on held-out images; reconstruction is "
            f"{number(self.reconstruction_psnr, 'dB')}, {count_images(self.images)}.",
            "",
            *markdown_table(head, rows),
            "",
            *(f"- {markdown(line)}" for line in self.recommendation.splitlines()),
        ]
        return "\n".join(lines) + "\n"

    def figure(self) -> Figure:
        """Errors by operator, errors by channel, eigenvalues of the 1x1 operators, and the spectrum."""
        from equivae.reporting.analysis_figure import draw_analysis

        return draw_analysis(self)

    def save(self, folder: str | Path) -> Path:
        """Write `analysis.json`, `analysis.md` and `analysis.png` into a folder."""
        texts = {
            "analysis.json": json.dumps(json_types(self.to_dict()), indent=1) + "\n",
            "analysis.md": self.to_markdown(),
        }
        return save_files(folder, texts, {"analysis.png": self.figure()}, overwrite=True)


def _cell(error: float, psnr: float) -> str:
    return f"{error:.3f}, {number(psnr, 'dB')}"


@at_top_level()
def analyze_latents(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = ("rot180", "hflip", "rot90"),
    *,
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    validation_split: float = 0.2,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> LatentAnalysis:
    """How the latents of a VAE respond to transforms, plainly and with fitted latent ops of four sizes.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups, transforms or a list of those.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        validation_split: share of the images that are held out; the errors are theirs.
        eval_batch_size: images per call.
        seed: of the split.
        progress: show a progress bar.

    Raises `InputError` for an unknown transform, fewer than two images, or images that the VAE cannot
    take. Spectrum as in Skorokhodov et al., *Improving the Diffusability of Autoencoders* (arXiv
    2502.14831): energy of block DCT coefficients by frequency.

    ```python
    import equivae

    found = equivae.analyze_latents(
        equivae.zoo.load(), equivae.data.dead_leaves(10, size=64), "rot180", progress=False
    )
    print(found.to_markdown())
    found.save("analysis")
    ```
    """
    wanted = resolve_transforms(transforms)
    if not wanted:
        raise InputError(
            "there is no transform to analyze beside the identity; name one, as 'rot180'."
        )
    autoencoder = Autoencoder(load_vae(vae))
    dataset = load_images(
        images,
        resolution=resolution,
        channels=autoencoder.image_channels,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    options = FitOptions(
        kernel_size="auto",
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        progress=progress,
    )
    found = measure_responses(autoencoder, dataset, wanted, options)
    return LatentAnalysis(**{f.name: getattr(found, f.name) for f in fields(found)})

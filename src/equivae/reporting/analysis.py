"""`analyze_latents`: how equivariant a VAE is already, of which kind, and what would help it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, evaluating
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.evaluation.spectrum import block_energy, spectrum_of
from equivae.files.pretrained import load_vae
from equivae.files.writing import write_beside
from equivae.operators import ConvOperator, FitOptions, SignSignature, sign_signature
from equivae.operators.decoding import decoded_psnr
from equivae.operators.problems import Problem, gather
from equivae.operators.regression import PatchRegression
from equivae.operators.solve import INVISIBLE_DB, candidates, choose, operator_psnr
from equivae.operators.transform import is_involution
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LatentAnalysis", "TransformAnalysis", "analyze_latents"]

_CLOSE_DB, _NEAR_DB = 0.5, 3.0


@dataclass(frozen=True)
class TransformAnalysis:
    """How the latents respond to one transform, on held-out images.

    Attributes:
        grid_error: `‖S E(x) - E(T x)‖ / ‖E(T x)‖`, the grid move alone.
        fitted_errors: kernel size to the same error with a fitted operator.
        grid_psnr: PSNR in dB of the grid move's decode against `T x`.
        fitted_psnr: kernel size to that of the fitted operator.
        channel_grid_errors: the grid move's error of every channel, relative to the channel's spread.
        channel_fitted_errors: the same with the largest operator.
        signature: signs of the 1x1 operator of an involution; `None` for other transforms.
        recommendation: what would help, in a sentence.
    """

    grid_error: float
    fitted_errors: dict[int, float]
    grid_psnr: float
    fitted_psnr: dict[int, float]
    channel_grid_errors: list[float]
    channel_fitted_errors: list[float]
    signature: SignSignature | None
    recommendation: str


@dataclass(frozen=True)
class LatentAnalysis:
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

    images: int
    reconstruction_psnr: float
    transforms: dict[str, TransformAnalysis]
    latent_spectrum: list[float]
    image_spectrum: list[float]
    channel_deviations: list[float]

    @property
    def recommendation(self) -> str:
        """The sentences of all transforms."""
        return "\n".join(f"{name}: {t.recommendation}" for name, t in self.transforms.items())

    def to_dict(self) -> dict[str, Any]:
        """All of it, of JSON types."""
        return {**asdict(self), "recommendation": self.recommendation}

    def to_markdown(self) -> str:
        """A table of errors and decoded PSNR, and the recommendations."""
        sizes = list(next(iter(self.transforms.values())).fitted_errors)
        head = ["transform", "grid move", *(f"{k}x{k}" for k in sizes), "signs"]
        lines = [
            "# Latent analysis",
            "",
            f"Relative latent error and decoded PSNR on held-out images; reconstruction is "
            f"{self.reconstruction_psnr:.2f} dB, {self.images} images.",
            "",
            f"| {' | '.join(head)} |",
            "|" + "---|" * len(head),
        ]
        for name, found in self.transforms.items():
            cells = [f"{found.grid_error:.3f}, {found.grid_psnr:.2f} dB"]
            cells += [f"{found.fitted_errors[k]:.3f}, {found.fitted_psnr[k]:.2f} dB" for k in sizes]
            signs = found.signature
            cells.append("" if signs is None else f"{signs.positive} +, {signs.negative} -")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", *(f"- {line}" for line in self.recommendation.splitlines())]
        return "\n".join(lines) + "\n"

    def figure(self) -> Figure:
        """Errors by operator, errors by channel, eigenvalues of the 1x1 operators, and the spectrum."""
        return _draw(self)

    def save(self, folder: str | Path) -> Path:
        """Write `analysis.json`, `analysis.md` and `analysis.png` into a folder."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output folder {folder} is a file; choose another name.")
        folder.mkdir(parents=True, exist_ok=True)
        figure, text = self.figure(), json.dumps(self.to_dict(), indent=1) + "\n"
        write_beside(folder / "analysis.png", lambda path: figure.savefig(path))
        write_beside(folder / "analysis.md", lambda path: _write(path, self.to_markdown()))
        write_beside(folder / "analysis.json", lambda path: _write(path, text))
        return folder


def analyze_latents(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = ("rot180", "hflip", "rot90"),
    *,
    resolution: int | None = None,
    max_samples: int | None = None,
    validation_split: float = 0.2,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> LatentAnalysis:
    """How the latents of a VAE respond to transforms: to the grid move, and to operators of four sizes.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups, transforms or a list of those.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
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
    )
    options = FitOptions(
        kernel_size="auto",
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        progress=progress,
        phases=False,
    )
    problems, _ = gather(autoencoder, wanted, dataset, options)
    reconstruction = _reconstruction_psnr(autoencoder, problems[wanted[0].name])
    found = {
        t.name: _analyze(autoencoder, problems[t.name], options, reconstruction) for t in wanted
    }
    spectra = _spectra(autoencoder, dataset, eval_batch_size)
    return LatentAnalysis(len(dataset), reconstruction, found, *spectra)


def _analyze(
    vae: Autoencoder, problem: Problem, options: FitOptions, reconstruction: float
) -> TransformAnalysis:
    found = [
        replace(one, decoded_psnr=operator_psnr(problem, vae, one.operator))
        for one in candidates(problem, options)
    ]
    held_out = problem.equations.held_out
    assert isinstance(held_out, PatchRegression)
    grid = held_out.grid_move()
    grid_psnr = operator_psnr(problem, vae, held_out.operator(grid))
    fitted_psnr = {one.operator.kernel_size: one.decoded_psnr or math.nan for one in found}
    smallest, chosen = found[0].operator, choose(found)
    assert isinstance(smallest, ConvOperator)
    largest = problem.equations.train.solve(found[-1].ridge, found[-1].kernel)
    return TransformAnalysis(
        grid_error=problem.grid_error,
        fitted_errors={one.operator.kernel_size: one.latent_error for one in found},
        grid_psnr=grid_psnr,
        fitted_psnr=fitted_psnr,
        channel_grid_errors=held_out.channel_errors(grid),
        channel_fitted_errors=held_out.channel_errors(largest),
        signature=sign_signature(smallest) if is_involution(problem.transform) else None,
        recommendation=_recommend(
            reconstruction,
            grid_psnr,
            chosen.decoded_psnr or math.nan,
            chosen.operator.kernel_size,
        ),
    )


def _recommend(reconstruction: float, grid: float, fitted: float, kernel_size: int) -> str:
    reconstruction, grid, fitted = (
        min(value, INVISIBLE_DB) for value in (reconstruction, grid, fitted)
    )
    size = f"{kernel_size}x{kernel_size}"
    if reconstruction - grid <= _CLOSE_DB:
        return (
            f"the plain grid move decodes within {max(0.0, reconstruction - grid):.1f} dB of a "
            "reconstruction, nothing is needed."
        )
    gap = f"{max(0.0, reconstruction - fitted):.1f} dB below a reconstruction"
    plain = f"the plain grid move is {reconstruction - grid:.1f} dB below"
    if reconstruction - fitted <= _CLOSE_DB:
        return f"a fitted {size} operator is enough, {gap} ({plain})."
    if reconstruction - fitted <= _NEAR_DB:
        return (
            f"a fitted {size} operator is {gap} ({plain}); fine-tune decoder and operator from it, or "
            "symmetrize for exactness under the plain move."
        )
    return (
        f"a fitted {size} operator is {gap} ({plain}), too far to start from; symmetrize, or fine-tune "
        "all weights."
    )


def _reconstruction_psnr(vae: Autoencoder, problem: Problem) -> float:
    """Of the held-out images that are decoded."""
    return decoded_psnr(
        vae,
        ((pair.latent, pair.source, None) for pair in problem.decoded() if pair.source is not None),
    )


@torch.no_grad()
def _spectra(
    vae: Autoencoder, images: ImageDataset, batch_size: int, most: int = 32
) -> tuple[list[float], list[float], list[float]]:
    """The latents' spectrum, the images' and the channels' deviations, over some of the images."""
    some = images.subset(range(min(most, len(images))))
    found = []
    with evaluating(vae.module):
        for batch in DataLoader(some, batch_size):  # type: ignore[arg-type]
            x = batch.to(vae.device, vae.dtype)
            found.append((vae.encode(x).double().cpu(), x.double().cpu()))
    latents, pixels = (torch.cat(parts) for parts in zip(*found, strict=True))
    deviations = latents.transpose(0, 1).flatten(1).std(1)
    spectra = [spectrum_of(block_energy(grid)) for grid in (latents, pixels)]
    return spectra[0], spectra[1], deviations.tolist()


def _draw(found: LatentAnalysis) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ink, muted, accent, warm = "#1f2328", "#8c959f", "#0969da", "#bf3989"
    names = list(found.transforms)
    figure = Figure(figsize=(13.5, 6.6), dpi=150, facecolor="white", layout="constrained")
    (decoded, channels), (signs, spectrum) = figure.subplots(2, 2)

    sizes = list(found.transforms[names[0]].fitted_errors)
    labels = ["grid", *(f"{k}x{k}" for k in sizes)]
    shades = [muted, "#b6d7ff", "#6cb0ff", "#2f81f7", "#0550ae"]
    for i, label in enumerate(labels):
        values = [
            t.grid_psnr if i == 0 else t.fitted_psnr[sizes[i - 1]]
            for t in found.transforms.values()
        ]
        places = [j + (i - (len(labels) - 1) / 2) * 0.16 for j in range(len(names))]
        decoded.bar(places, values, 0.15, label=label, color=shades[i])
    decoded.axhline(found.reconstruction_psnr, color=warm, lw=1.2, ls="--", label="reconstruction")
    lowest = min(t.grid_psnr for t in found.transforms.values())
    lowest = min([lowest, *(p for t in found.transforms.values() for p in t.fitted_psnr.values())])
    decoded.set_ylim(max(0.0, lowest - 3), found.reconstruction_psnr + 4)  # room for the legend
    decoded.set_xticks(range(len(names)), names)
    decoded.set_ylabel("decoded PSNR in dB")
    decoded.set_title("a  What the decoder makes of the moved latent", loc="left", color=ink)
    decoded.legend(frameon=False, ncols=3, fontsize=8)

    rows, row_labels = [], []
    for name, one in found.transforms.items():
        rows += [one.channel_grid_errors, one.channel_fitted_errors]
        row_labels += [f"{name}, grid", f"{name}, {sizes[-1]}x{sizes[-1]}"]
    image = channels.imshow(rows, aspect="auto", cmap="magma_r", vmin=0, vmax=2**0.5)
    channels.set_yticks(range(len(rows)), row_labels, fontsize=8)
    channels.set_xlabel("latent channel")
    channels.xaxis.set_major_locator(MaxNLocator(integer=True))
    channels.set_title("b  Error by channel, relative to its spread", loc="left", color=ink)
    figure.colorbar(image, ax=channels, pad=0.01)

    shown = [(n, t.signature) for n, t in found.transforms.items() if t.signature is not None]
    for i, (name, signature) in enumerate(shown):
        assert signature is not None
        label = f"{name}: {signature.positive} keep their sign, {signature.negative} flip it"
        values = list(signature.eigenvalues)
        signs.plot(values, "o-", ms=3, lw=1, color=(accent, warm, muted)[i % 3], label=label)
    for level in (-1, 1):
        signs.axhline(level, color="#d0d7de", lw=1, zorder=0)
    signs.set_xlabel("eigenvalue of the 1x1 operator, in order")
    signs.set_ylabel("real part")
    signs.xaxis.set_major_locator(MaxNLocator(integer=True))
    signs.set_title("c  Signs of the involutions", loc="left", color=ink)
    if shown:
        signs.legend(frameon=False, fontsize=8)

    for values, label, colour in (
        (found.latent_spectrum, "latents", accent),
        (found.image_spectrum, "images", muted),
    ):
        places = [(i + 1) / len(values) for i in range(len(values))]
        spectrum.semilogy(places, [max(v, 1e-12) for v in values], color=colour, label=label)
    spectrum.set_xlabel("frequency relative to the highest of the grid")
    spectrum.set_ylabel("share of the DCT energy")
    spectrum.set_title("d  Spectrum", loc="left", color=ink)
    spectrum.legend(frameon=False, fontsize=8)
    for axis in (decoded, signs, spectrum):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

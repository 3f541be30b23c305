"""`symmetrize`: exact equivariance under the plain latent op, for any VAE, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, at_top_level, check_images, check_transforms, measuring
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.operators import fit_latent_group, operators_of
from equivae.operators.decoding import decoded_psnr
from equivae.operators.options import KernelSize
from equivae.symmetry.domain import Method, lattice_group
from equivae.symmetry.module import SymmetrizedVAE
from equivae.symmetry.report import SymmetrizeReport
from equivae.transforms import Group, Transform

__all__ = ["symmetrize"]

_MARGINS = (3, 4, 6)
_MARGIN_LOSS_DB = 0.15  # a wider margin costs time, and so little is not seen
_SEAMS: tuple[int | None, ...] = (16, None)  # the first without images to choose on
_MEASURED_IMAGES = 4


@at_top_level()
def symmetrize(
    vae: nn.Module | str | Path,
    group: str | Group,
    method: Method = "fundamental-domain",
    images: ImagesLike | None = None,
    *,
    kernel_size: KernelSize = 5,
    magnitude: int = 0,
    margin: int | str | None = "auto",
    passes: int = 2,
    seam: int | str | None = "auto",
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> SymmetrizedVAE:
    r"""An exactly equivariant autoencoder around a VAE: `E'(T x) = S E'(x)` and `D'(S z) = T D'(z)`.

    The latent grid is divided into copies of a fundamental domain, each of which is encoded and decoded in
    the orientation that brings it to the domain (see `SymmetrizedVAE`). The law holds for every VAE, to
    float rounding, with no training. Latents change their convention at the domain's borders, so that a
    diffusion model trained on the plain VAE's latents does not read them.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from. It is
            used as it is, neither copied nor changed, its modes of training included.
        group: `"c2"`, `"hflip"`, `"vflip"`, `"d2"`, `"c4"`, `"d4"`, or a `Group` of lattice transforms.
        method: `"fundamental-domain"`, or `"average"`: the mean over the group, exact too but far worse in
            reconstruction, since the averaged latents disagree.
        images: what the latent ops for the context are fitted on and the margin is measured on, anything
            that `equivae.data.load_images` takes. Without them the context is the plain latent op.
        kernel_size: of these latent ops, as `magnitude`, see `fit_latent_op`.
        margin: cells around the domain that are encoded and decoded with it. `"auto"` measures which of
            3, 4 and 6 is enough (within 0.15 dB) on four of the images, and takes the whole grid when
            there are none; `None` takes the whole grid.
        passes: how often the context is translated, see `SymmetrizedVAE`.
        seam: pixels over which the decoded parts fade into one another, see `SymmetrizedVAE`. `"auto"`
            measures whether 16 or `None`, all that is decoded, reconstructs better, and takes 16 without
            images. Parts that overlap are averaged, which also smooths what they disagree about.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        eval_batch_size: images per call.
        seed: of the split of the fit.
        progress: show a progress bar.

    Returns a `SymmetrizedVAE`; with images, its `report` states cost and effect. Raises `InputError` for
    what is no group of lattice transforms and for images that the VAE cannot take.

    An equivariant map as one stabiliser-invariant map per orbit is the construction of Sannai, Takai and
    Cordonnier (arXiv 1903.01939, 2409.16922); near it are frame averaging (Puny et al., 2110.03336),
    canonicalisation (Kaba et al., 2211.06489) and fundamental-domain projection (Aslan, Platt, Sheard,
    2202.02164); the soft seam is a weighted frame (Dym et al., 2402.16077). Ours: the frozen encoder and
    decoder, fitted latent ops as context, and crops that keep the cost low.

    ```python
    import equivae

    images = equivae.data.dead_leaves(8, size=64)
    svae = equivae.symmetrize(equivae.zoo.load(), "c2", images=images, progress=False)
    report = equivae.evaluate(svae, images, transforms="rot180", progress=False)
    assert report.metrics.transforms["rot180"].encoder_relative_error < 1e-5
    ```
    """
    group = lattice_group(group)
    for name, value, unit in (("margin", margin, "latent cells"), ("seam", seam, "pixels")):
        if value != "auto" and (isinstance(value, str) or (value is not None and value < 0)):
            raise InputError(
                f"{name} must be a number of {unit} from 0, None or 'auto', got {value!r}."
            )
    autoencoder = Autoencoder(load_vae(vae))
    check_transforms(group.elements, autoencoder.layout, autoencoder)
    if images is None:
        whole = None if isinstance(margin, str) else margin
        narrow = _SEAMS[0] if isinstance(seam, str) else seam
        return _made(autoencoder.module, group, method, None, whole, passes, narrow)
    dataset = load_images(
        images,
        resolution=resolution,
        channels=autoencoder.image_channels,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    transforms: dict[str, Transform] = {}
    if method == "fundamental-domain":
        fitted = fit_latent_group(
            autoencoder.module,
            group,
            dataset,
            kernel_size,
            magnitude=magnitude,
            eval_batch_size=eval_batch_size,
            seed=seed,
            progress=progress,
        )
        transforms = {n: t for n, t in fitted.transforms.items() if n != "identity"}
        for one in operators_of(transforms.values()):
            one.to(autoencoder.dtype)  # in which they are applied; one module has one dtype
    given = _SEAMS[:1] if method == "average" else _SEAMS
    seams = given if isinstance(seam, str) else (seam,)
    made = _made(autoencoder.module, group, method, transforms, None, passes, seams[0])
    made.report = _measure(made, dataset, margin, seams, eval_batch_size)
    return made


def _made(vae: nn.Module, *arguments: Any) -> SymmetrizedVAE:
    made = SymmetrizedVAE(vae, *arguments)
    made.training = vae.training  # `train()` would put every part of the user's VAE in that mode
    made.operators.train(made.training)
    return made


def _measure(
    made: SymmetrizedVAE,
    images: ImageDataset,
    margin: int | str | None,
    seams: Sequence[int | None],
    batch_size: int,
) -> SymmetrizeReport:
    """Reconstruction with and without; the better seam, the smallest margin that costs next to nothing."""
    count = min(_MEASURED_IMAGES, len(images))
    step = max(1, len(images) // count)
    some = torch.stack([images[i * step] for i in range(count)])
    plain, symmetrized = Autoencoder(made.vae), Autoencoder(made)
    check_images(some, plain)

    def reconstruction(vae: Autoencoder) -> float:
        parts = torch.split(some.to(plain.device, plain.dtype), batch_size)
        return decoded_psnr(vae, ((vae.encode(x), x, None) for x in parts))

    with measuring(made):
        longest = max(some.shape[-2:]) // plain.factor
        margins: list[Any] = [margin]
        if margin == "auto":
            margins = [cells for cells in _MARGINS if cells < longest] or [None]
        found: dict[int | None, float] = {}
        tried: dict[str, float] = {}
        made.margin, made.seam = margins[0], seams[0]
        if len(seams) > 1:
            by_seam: dict[int | None, float] = {}
            for made.seam in seams:
                by_seam[made.seam] = reconstruction(symmetrized)
            made.seam = max(by_seam, key=by_seam.__getitem__)
            found[made.margin] = by_seam[made.seam]
            tried = {"all" if one is None else f"{one}": value for one, value in by_seam.items()}
        for made.margin in margins:
            if made.margin not in found:
                found[made.margin] = reconstruction(symmetrized)
        enough = max(found.values()) - _MARGIN_LOSS_DB
        made.margin = next(cells for cells in margins if found[cells] >= enough)
        encoder_law, decoder_law = _law_errors(symmetrized, made.group, some[:1])
        return SymmetrizeReport(
            group=made.group.name,
            margin=made.margin,
            cost=made.cost(*some.shape[-2:]),
            images=count,
            plain_psnr=reconstruction(plain),
            reconstruction_psnr=found[made.margin],
            margins={c: v for c, v in found.items() if c is not None and margin == "auto"},
            seam=made.seam,
            seams=tried,
            encoder_law_error=encoder_law,
            decoder_law_error=decoder_law,
        )


def _law_errors(vae: Autoencoder, group: Group, image: Tensor) -> tuple[float, float]:
    """How far one element is from the law, which is exact but for the rounding of the dtype."""
    x = image.to(vae.device, vae.dtype)
    move = next(element for element in group if element.name != "identity")
    z = vae.encode(x)
    encoder = (vae.encode(move.pixel(x)) - move.latent(z)).abs().max() / z.abs().max()
    decoder = (vae.decode(move.latent(z)) - move.pixel(vae.decode(z))).abs().max()
    return float(encoder), float(decoder)

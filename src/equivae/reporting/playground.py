"""`playground`: one page on which a transform is dragged and every way to it is seen side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from equivae import zoo
from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.names import display_name
from equivae.data.procedural import dead_leaves
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae, origin_of
from equivae.operators import fit_latent_op
from equivae.operators.options import FitOptions, KernelSize
from equivae.operators.pairs import check_transform_fits
from equivae.options import BATCH, SEED, SIDE, Options, at_least, option
from equivae.reporting.content import command_line, json_types, timestamp
from equivae.reporting.evaluate import describe
from equivae.reporting.frames import Position, Settings, decode_positions, transforms_of
from equivae.reporting.playground_page import save_playground
from equivae.reporting.sliders import SLIDERS, check_settings
from equivae.symmetry import symmetrize
from equivae.symmetry.domain import lattice_group
from equivae.transforms import Group, Transform
from equivae.transforms.combinators import choice

__all__ = ["Playground", "PlaygroundOptions", "playground"]

_FITTED_CELLS, _LEAST_SIDE = 16, 64  # of the procedural images
_SEED = 1_000  # apart from the images that the embedded VAE was trained on


@dataclass(frozen=True)
class PlaygroundOptions(Options):
    """What the sliders can be set to, and how the ways are made; `playground` says what each means."""

    angles: Sequence[float] = option(
        tuple(float(angle) for angle in range(0, 360, 15)),
        "Degrees of the angle slider, comma-separated.",
        check=check_settings,
    )
    scales: Sequence[float] = option(
        (0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
        "Factors of the scale slider, comma-separated.",
        check=check_settings,
    )
    exposures: Sequence[float] = option(
        (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6),
        "Factors of the exposure slider, comma-separated.",
        check=check_settings,
    )
    saturations: Sequence[float] = option(
        (0.25, 0.5, 1.0, 1.5, 2.0),
        "Factors of the saturation slider, comma-separated.",
        check=check_settings,
    )
    resolution: int = option(256, "Resize and centre-crop to this side.", range=SIDE)
    max_samples: int = option(64, "Images to fit on at most.", range=at_least(2))
    eval_batch_size: int = option(4, "Images per call.", range=BATCH)
    seed: int = option(0, "Seed of the images and of the fits.", range=SEED)

    def check(self) -> None:
        if not transforms_of(self.settings):
            raise InputError(
                "no slider has a setting that changes the picture; give one of them a number other than "
                "the one at which it rests."
            )

    @property
    def settings(self) -> Settings:
        """Of every slider that can be moved, in order, the one at rest among them."""
        given = {slider: tuple(getattr(self, slider.option)) for slider in SLIDERS}
        return {
            slider.name: sorted({float(slider.rest), *map(float, values)})
            for slider, values in given.items()
            if set(values) - {slider.rest}
        }


@dataclass(frozen=True)
class Playground:
    """The frames of a playground, and the page that shows them.

    Attributes:
        positions: every slider at every setting.
        image: the name of the picture.
        settings: how it was made.
        created: when, in UTC.
        command: the command that made it.
    """

    positions: list[Position]
    image: str
    settings: dict[str, Any]
    created: str = field(default_factory=timestamp)
    command: str = field(default_factory=command_line)

    def to_dict(self) -> dict[str, Any]:
        """The PSNR of every way at every position, in JSON's types."""
        rows = [
            {
                "slider": one.slider,
                "value": one.value,
                "transform": one.transform,
                "psnr": {way: frame.psnr for way, frame in one.frames.items()},
            }
            for one in self.positions
        ]
        found = {"image": self.image, "settings": self.settings, "positions": rows}
        return json_types(found)  # type: ignore[no-any-return]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `playground.html`, which needs nothing beside it, and `playground.json`; return the page.

        Raises `InputError` if there is a page already, unless `overwrite` is set.
        """
        return save_playground(self, folder, overwrite=overwrite)


def playground(
    vae: nn.Module | str | Path = "embedded",
    image: str | Path | Tensor | None = None,
    images: ImagesLike | None = None,
    *,
    angles: Sequence[float] = PlaygroundOptions.angles,
    scales: Sequence[float] = PlaygroundOptions.scales,
    exposures: Sequence[float] = PlaygroundOptions.exposures,
    saturations: Sequence[float] = PlaygroundOptions.saturations,
    group: str | Group = "c4",
    kernel_size: KernelSize = 5,
    resolution: int = 256,
    max_samples: int = 64,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Playground:
    """A page on which an angle, a scale, an exposure and a saturation are dragged on a picture's latent.

    At every setting it shows what the plain latent op, a fitted one, re-encoding and a symmetrized VAE decode
    to, each with its PSNR against the transformed picture. All frames are computed here, so that the page
    needs neither a server nor a network.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        image: the picture: a file, or a tensor `(3, H, W)` in [-1, 1]; by default a photograph of
            `equivae.zoo`.
        images: what the latent ops are fitted on, anything that `equivae.data.load_images` takes; by
            default procedural images.
        angles: settings in degrees, counter-clockwise; multiples of 90 are turns of the grid.
        scales: factors of the size; the sides of the latent have to stay whole cells.
        exposures: factors of linear light.
        saturations: factors of the saturation.
        group: of the symmetrized VAE, see `equivae.symmetrize`.
        kernel_size: of the fitted ops, see `equivae.fit_latent_op`.
        resolution: resize and centre-crop the picture, and `images` where they are given, to this side in
            pixels.
        max_samples: fit on the first so many images, or on so many procedural ones.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        eval_batch_size: images per call.
        seed: of the procedural images and of the fits.
        progress: show progress bars.

    Returns a `Playground`; its `save` writes the page. PSNR is in dB, of [0, 1] units after clamping,
    inside the transform's validity mask. Raises `InputError` for settings that no slider has, a picture
    that cannot be read, a VAE that takes no colour images, and sides that are not whole cells.

    ```python
    import equivae

    sliders = {"angles": [90], "scales": [], "exposures": [], "saturations": []}
    made = equivae.playground(**sliders, resolution=32, max_samples=4, progress=False)
    page = made.save("playground-out")
    assert page.name == "playground.html"
    ```
    """
    asked = PlaygroundOptions(
        angles=angles,
        scales=scales,
        exposures=exposures,
        saturations=saturations,
        resolution=resolution,
        max_samples=max_samples,
        eval_batch_size=eval_batch_size,
        seed=seed,
    )
    FitOptions(kernel_size)
    group = lattice_group(group)
    view = Autoencoder(load_vae(vae))
    picture, name = _picture(view, image, resolution, background)
    transforms = [view.place(transform) for transform in transforms_of(asked.settings)]
    for transform in transforms:
        check_transform_fits(transform, picture, view)
    reading = {"image_column": image_column, "split": split, "background": background}
    fitted_on = _fitted_on(view, images, asked, reading)
    fitting = {"kernel_size": kernel_size, "eval_batch_size": eval_batch_size, "seed": seed}
    fitting["progress"] = progress
    fitted = _fitted(view, transforms, fitted_on, fitting)
    symmetrized = symmetrize(view.module, group, images=fitted_on, **fitting)  # type: ignore[arg-type]
    positions = decode_positions(view, picture, asked.settings, fitted, symmetrized, progress)
    settings = {
        "vae": str(origin_of(view.module) or describe(vae)),
        "image": name,
        "resolution": resolution,
        "fitted on": f"{len(fitted_on)} {'procedural ' if images is None else ''}images",
        "kernel_size": kernel_size,
        "group": group.name,
        "seed": seed,
    }
    return Playground(positions, name, settings)


def _picture(
    vae: Autoencoder, image: str | Path | Tensor | None, resolution: int, background: Any
) -> tuple[Tensor, str]:
    """The picture `(3, R, R)` in [-1, 1], and what it is called."""
    if vae.layout != "image" or vae.image_channels != 3:
        raise InputError(
            f"the playground shows colour photographs, and {type(vae.module).__name__} takes "
            f"{vae.layout}s with {vae.image_channels} channels; pass a VAE of images with 3 channels."
        )
    check_resolution(resolution, vae)
    if image is None:
        return zoo.photographs(resolution)[0], "astronaut"
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            what = "is no file" if Path(image).exists() else "does not exist"
            raise InputError(f"image {image} {what}; pass the file of a picture.")
        name = display_name(image)
    else:
        name = "picture"
    read = load_images([image], resolution=resolution, background=background, verify=True)
    return read[0], name


def _fitted_on(
    vae: Autoencoder, images: ImagesLike | None, asked: PlaygroundOptions, reading: dict[str, Any]
) -> ImageDataset:
    if images is None:
        side = max(_LEAST_SIDE, _FITTED_CELLS * vae.factor)
        return load_images(dead_leaves(asked.max_samples, side, asked.seed + _SEED))
    return load_images(
        images, resolution=asked.resolution, max_samples=asked.max_samples, **reading
    )


def _fitted(
    vae: Autoencoder, transforms: Sequence[Transform], images: ImageDataset, options: dict[str, Any]
) -> dict[str, Transform]:
    """The fitted op of every transform, by the transform's name."""
    found: dict[str, Transform] = {}
    masked = [one for one in transforms if one.mask(images[0][None]) is not None]
    for own in ([one for one in transforms if one not in masked], masked):
        if own:
            # Where a mask leaves the border out, nothing tells what a channel that marks it should do.
            family: Any = fit_latent_op(
                vae.module,
                choice(own),
                images,
                inverse=False,
                border=own is not masked,
                **options,
            )
            found |= {one.base.name: one for one in family.members}
    return found

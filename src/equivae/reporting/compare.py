"""`compare`: several VAEs side by side, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.names import display_name
from equivae.data.sources import ImagesLike
from equivae.errors import InputError
from equivae.evaluation.features import BackboneLike, LpipsLike
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.evaluation.results import Metrics
from equivae.files.pretrained import load_vae
from equivae.processes import process_state
from equivae.reporting.comparison import Comparison
from equivae.reporting.evaluate import choose_samples, choose_sweep, describe
from equivae.reporting.pictures import choose_images, picture
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["Comparison", "compare"]

VAELike = Union[nn.Module, str, Path]


def compare(
    vaes: Sequence[VAELike] | Mapping[str, VAELike],
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    *,
    resolution: int | None = None,
    eval_batch_size: int = 4,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    sweep_samples: int | None = None,
    reencode: bool = False,
    features: BackboneLike | None = None,
    lpips: LpipsLike | None = None,
    seed: int = 0,
    panels: int = 3,
    progress: bool = True,
) -> Comparison:
    """Measure several VAEs on the same images.

    Args:
        vaes: modules, or where to load them from; with labels of your own in a mapping.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups, transforms or a list of those.
        resolution: as the other options, see `evaluate`.
        panels: how many images are pictured, from the best to the worst of the first VAE.

    VAEs that are loaded here go to the process's device. Drift is measured against the first. Raises
    `InputError` for fewer than two VAEs, and as `evaluate` does.

    ```python
    import equivae

    vae = equivae.zoo.load()
    found = equivae.compare(
        {"plain": vae, "symmetrized": equivae.symmetrize(vae, "c2")},
        equivae.data.dead_leaves(2, size=64),
        "rot180",
    )
    print(found.to_markdown())
    ```
    """
    given = dict(vaes) if isinstance(vaes, Mapping) else _labelled(vaes)
    if len(given) < 2:
        raise InputError(f"compare needs at least two autoencoders, got {len(given)}.")
    wanted = resolve_transforms(transforms)
    reading = {"image_column": image_column, "split": split, "background": background}
    loaded = {label: Autoencoder(_load(vae)) for label, vae in given.items()}
    first = next(iter(loaded.values()))
    for label, vae in loaded.items():
        if vae.image_channels != first.image_channels:
            raise InputError(
                f"{label} takes images of {vae.image_channels} channels, {next(iter(loaded))} of "
                f"{first.image_channels}; only VAEs of the same kind of images can be compared."
            )
        check_resolution(resolution, vae)
    dataset = choose_samples(
        first,
        images,
        resolution,
        max_samples,
        eval_batch_size=eval_batch_size,
        seed=seed,
        **reading,
    )
    options = MeasureOptions(
        batch_size=eval_batch_size,
        sweep_samples=choose_sweep(sweep_samples, dataset),
        reencode=reencode,
        features=features,
        lpips=lpips,
        seed=seed,
        progress=progress,
    )
    kept: dict[int, Any] = {}
    found: dict[str, Metrics] = {}
    for label, vae in loaded.items():
        memory = {"baseline_latents": kept} if found else {"keep_latents": kept}
        found[label] = measure(vae, dataset, wanted, options, label=label, **memory)  # type: ignore[arg-type]
    chosen = choose_images(next(iter(found.values())), panels)
    return Comparison(
        found,
        sources={label: describe(vae) for label, vae in given.items()},
        panels={
            label: picture(vae, dataset, chosen, wanted, seed) for label, vae in loaded.items()
        },
        settings={
            "images": display_name(images) if isinstance(images, (str, Path)) else len(dataset),
            "transforms": ",".join(t.name for t in wanted),
            "resolution": resolution or "as they are",
            "seed": seed,
        },
        skipped=[*dataset.skipped, *dataset.replaced],
    )


def _load(vae: VAELike) -> nn.Module:
    loaded = load_vae(vae)
    return loaded if isinstance(vae, nn.Module) else loaded.to(process_state().device)


def _labelled(vaes: Sequence[VAELike]) -> dict[str, VAELike]:
    """Labels as short as they can be: the last part of a path or name, or the class; numbered if alike."""
    whole = [describe(vae) for vae in vaes]
    short = [
        text if isinstance(vae, nn.Module) else Path(text).name or text
        for text, vae in zip(whole, vaes, strict=True)
    ]
    chosen = short if len(set(short)) == len(short) else whole
    if len(set(chosen)) < len(chosen):
        chosen = [f"{text} ({i + 1})" for i, text in enumerate(chosen)]
    return dict(zip(chosen, vaes, strict=True))

"""`compare`: several VAEs side by side, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.sources import ImagesLike
from equivae.errors import InputError
from equivae.evaluation.metrics import measure
from equivae.evaluation.results import Metrics
from equivae.files.pretrained import load_vae
from equivae.processes import process_state
from equivae.reporting.comparison import Comparison
from equivae.reporting.evaluate import choose_samples, describe, describe_run
from equivae.reporting.options import EvaluationOptions, with_evaluation_options
from equivae.reporting.pictures import choose_images, picture
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["Comparison", "compare"]

VAELike = Union[nn.Module, str, Path]


@with_evaluation_options
def compare(
    vaes: Sequence[VAELike] | Mapping[str, VAELike | Sequence[VAELike]],
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    **options: Any,
) -> Comparison:
    """Measure several VAEs on the same images.

    Args:
        vaes: modules, or where to load them from; with labels of your own in a mapping, in which a list
            stands for several seeds of one training: every seed has its column, and mean and standard
            deviation over them a table.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups, transforms or a list of those.
        **options: those of `evaluate`; `panels` go from the best to the worst of the first VAE.

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
    given, seeds = _runs(vaes) if isinstance(vaes, Mapping) else (_labelled(vaes), {})
    if len(given) < 2:
        raise InputError(f"compare needs at least two autoencoders, got {len(given)}.")
    asked = EvaluationOptions(**options)
    wanted = resolve_transforms(transforms)
    loaded = {label: Autoencoder(_load(vae)) for label, vae in given.items()}
    _check_alike(loaded, asked)
    dataset = choose_samples(next(iter(loaded.values())), images, asked)
    measuring = asked.measuring(len(dataset))
    kept: dict[int, Any] = {}
    found: dict[str, Metrics] = {}
    for label, vae in loaded.items():
        memory = {"baseline_latents": kept} if found else {"keep_latents": kept}
        found[label] = measure(vae, dataset, wanted, measuring, label=label, **memory)  # type: ignore[arg-type]
    chosen = choose_images(next(iter(found.values())), asked.panels)
    return Comparison(
        found,
        sources={label: describe(vae) for label, vae in given.items()},
        panels={
            label: picture(vae, dataset, chosen, wanted, asked.seed)
            for label, vae in loaded.items()
        },
        settings=describe_run(images, dataset, wanted, asked),
        skipped=[*dataset.skipped, *dataset.replaced],
        seeds=seeds,
    )


def _runs(
    vaes: Mapping[str, VAELike | Sequence[VAELike]],
) -> tuple[dict[str, VAELike], dict[str, list[str]]]:
    """Every VAE by a label of its own, and the labels of those that are seeds of one training."""
    given: dict[str, VAELike] = {}
    seeds: dict[str, list[str]] = {}
    for label, one in vaes.items():
        if isinstance(one, (str, Path, nn.Module)):
            given[label] = one
            continue
        if not one:
            raise InputError(f"{label} is an empty list; pass the VAEs of its seeds.")
        seeds[label] = [f"{label}, seed {i + 1}" for i in range(len(one))]
        given |= dict(zip(seeds[label], one, strict=True))
    return given, seeds


def _check_alike(loaded: Mapping[str, Autoencoder], options: EvaluationOptions) -> None:
    first, *others = loaded
    for label in (first, *others):
        channels = [loaded[name].image_channels for name in (label, first)]
        if channels[0] != channels[1]:
            raise InputError(
                f"{label} takes images of {channels[0]} channels, {first} of {channels[1]}; only VAEs of the "
                "same kind of images can be compared."
            )
        check_resolution(options.side, loaded[label])


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

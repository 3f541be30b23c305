"""How equivariant a VAE is, and how well it reconstructs: the numbers, measured in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import (
    Autoencoder,
    check_images,
    check_transforms,
    layout_of,
    measuring,
)
from equivae.data.sources import ImageDataset, collate
from equivae.evaluation.features import Gaussian
from equivae.evaluation.latent_metrics import FlatField, OfFlatField, chosen, flat_field
from equivae.evaluation.latents import Latents, relative_drift
from equivae.evaluation.meter import Meter
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.protocols import Networks, conventions
from equivae.evaluation.references import reference_features
from equivae.evaluation.results import Metrics, Panel, Sweep, TransformMetrics
from equivae.evaluation.summary import Found, Summary
from equivae.evaluation.sweeps import SWEEPS, asked_for, measure_sweeps, sweep_images
from equivae.operators.transform import FittedTransform
from equivae.processes import process_state
from equivae.transforms import Transform
from equivae.transforms.registry import FunctionTransform
from equivae.units import psnr

__all__ = [
    "MeasureOptions",
    "Metrics",
    "Panel",
    "TransformMetrics",
    "kind_of_op",
    "measure",
    "psnr",
]

_KEPT_LATENTS = 256 * 2**20  # bytes of the baseline's latents held for the drift


def measure(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    options: MeasureOptions | None = None,
    *,
    label: str = "evaluate",
    keep_latents: Latents | None = None,
    baseline_latents: Mapping[int, Tensor] | None = None,
) -> Metrics:
    """Metrics of a VAE over images, shared out batch by batch among accelerate's processes.

    Every process returns the same, whatever their number.

    Args:
        vae: the same on every process.
        images: of one size, or of sizes that are alike within every batch.
        transforms: with distinct names.
        options: what is measured.
        label: of the progress bar.
        keep_latents: is filled with the latents by image, up to 256 MB of them.
        baseline_latents: what another VAE's measurement kept, to tell the drift.
    """
    from tqdm.auto import tqdm

    options = options or MeasureOptions()
    check_transforms(
        transforms, layout_of(images[0][None]), vae, min(options.batch_size, len(images))
    )
    state = process_state()
    meter = Meter(vae, transforms, options)
    starts = list(range(0, len(images), options.batch_size))
    drifts: dict[int, float] = {}
    kept = 0
    with (
        measuring(vae.module),
        state.split_between_processes(starts) as mine,
    ):
        batches = [list(range(s, min(s + options.batch_size, len(images)))) for s in mine]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        quiet = not (options.progress and state.is_main_process)
        bar = tqdm(loader, desc=label, disable=quiet, leave=False)
        for indices, batch in zip(batches, bar, strict=True):
            check_images(batch, vae)
            done = meter.see(batch.to(vae.device, vae.dtype), indices)
            for index, latent in zip(indices, done.z, strict=True):
                drift = relative_drift(latent, index, baseline_latents or {})
                if drift is not None:
                    drifts[index] = drift
                if keep_latents is not None and kept < _KEPT_LATENTS:
                    keep_latents[index] = latent.float().cpu()
                    kept += latent.numel() * 4
    found = Found()
    for part, some in gather_object([(meter.found, drifts)]):
        found.merge(part)
        drifts |= some
    ordered = [drifts[index] for index in sorted(drifts)]
    summary = Summary(
        found,
        images.names,
        {t.name: kind_of_op(t) for t in transforms},
        options,
        _reference(vae, images, options, meter.networks),
        _flat_field(vae, images, options),
        {t.name: t.base.name for t in transforms if isinstance(t, FittedTransform)},
    )
    return summary.metrics(
        sweeps=_sweeps(vae, images, transforms, options, label),
        latents=found.latents.statistics(ordered),
        conventions=conventions(options, meter.networks.named),
        notes=meter.networks.notes,
    )


def _sweeps(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    options: MeasureOptions,
    label: str,
) -> dict[str, Sweep]:
    """Of a few images, as far as they were asked for."""
    ranges = SWEEPS if options.sweep_all else asked_for(transforms)
    if not options.sweep_samples or not ranges or images[0].ndim != 3:
        return {}
    swept = sweep_images(len(images), options.sweep_samples)
    with measuring(vae.module):
        return measure_sweeps(
            vae,
            [images[i][None] for i in swept],
            ranges,
            label=f"{label}: sweeps",
            progress=options.progress,
        )


def kind_of_op(transform: Transform) -> str:
    """What a transform's latent op is: `"plain"`, `"fitted"`, or `"own"` for one from outside."""
    if isinstance(transform, FittedTransform):
        return "fitted"
    ours = type(transform).__module__.startswith("equivae.transforms.")
    return "plain" if ours and not isinstance(transform, FunctionTransform) else "own"


def _flat_field(
    vae: Autoencoder, images: ImageDataset, options: MeasureOptions
) -> FlatField | None:
    """Of the first image's size."""
    if images[0].ndim != 3 or not any(
        isinstance(one, OfFlatField) for one in chosen(options.metrics).values()
    ):
        return None
    with measuring(vae.module):
        return flat_field(vae, *images[0].shape[-2:])


def _reference(
    vae: Autoencoder, images: ImageDataset, options: MeasureOptions, networks: Networks
) -> Gaussian | None:
    if options.rfid_reference is None or networks.features is None:
        return None
    side, size = images[0].shape[-1], options.batch_size
    return reference_features(options.rfid_reference, networks.features, vae, side, size)

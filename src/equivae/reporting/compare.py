"""`compare`: several VAEs side by side, on the same images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.names import display_name
from equivae.data.sources import ImagesLike
from equivae.errors import InputError
from equivae.evaluation.features import BackboneLike, LpipsLike
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.evaluation.results import Metrics, Panel
from equivae.files.pretrained import load_vae
from equivae.processes import process_state
from equivae.reporting.content import command_line, json_types, save_files, timestamp, versions
from equivae.reporting.evaluate import choose_samples, describe
from equivae.reporting.pictures import choose_images, picture
from equivae.reporting.report import SCHEMA, UNITS
from equivae.reporting.tables import count_images, markdown_table, rows_of
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "compare"]

VAELike = Union[nn.Module, str, Path]


@dataclass
class Comparison:
    """What `compare` found.

    Attributes:
        metrics: label of a VAE to its numbers, in the order given.
        sources: label to where that VAE came from.
        panels: label to pictures of the same few images.
        settings: how the numbers came about.
        skipped: `(name, reason)` of images that could not be read.
        command: the command line that made it.
    """

    metrics: dict[str, Metrics]
    sources: dict[str, str]
    panels: dict[str, list[Panel]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    created: str = field(default_factory=timestamp)
    command: str = field(default_factory=command_line)

    @property
    def verdict(self) -> str:
        """One sentence: whose round trip is the best, by its worst transform."""
        count = count_images(next(iter(self.metrics.values())).images)
        worst = {
            label: min((t.round_trip_psnr, name) for name, t in one.transforms.items())
            for label, one in self.metrics.items()
            if one.transforms
        }
        if not worst:
            best = max(self.metrics, key=lambda label: self.metrics[label].reconstruction_psnr)
            value = self.metrics[best].reconstruction_psnr
            return f"{best} reconstructs best, {value:.2f} dB over {count}."
        best = max(worst, key=lambda label: worst[label][0])
        psnr, name = worst[best]
        others = [value for label, (value, _) in worst.items() if label != best]
        ahead = f", {psnr - max(others):.2f} dB above the next" if psnr > max(others) else ""
        return (
            f"{best} has the best round trip: {psnr:.2f} dB under {name}, its worst transform"
            f"{ahead}, over {count}."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a metric and its value for every VAE."""
        return [(label, *cells) for label, cells in rows_of(list(self.metrics.values()))]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, of JSON types; infinite numbers become `None`."""
        content = {
            "schema": SCHEMA,
            "created": self.created,
            "verdict": self.verdict,
            "units": UNITS,
            "vaes": {
                label: {"source": self.sources[label], "metrics": asdict(one)}
                for label, one in self.metrics.items()
            },
            "settings": self.settings,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "command": self.command,
            "versions": versions(),
        }
        return json_types(content)  # type: ignore[no-any-return]

    def to_markdown(self) -> str:
        """A short document: the verdict, the table, the figure."""
        lines = ["# Comparison of autoencoders", "", self.verdict, ""]
        lines += [*markdown_table(("metric", *self.metrics), self.rows()), ""]
        lines += ["![Round-trip PSNR of every autoencoder](comparison.png)", ""]
        made = ", ".join(f"{name} {number}" for name, number in versions().items())
        lines += [f"Made {self.created} by `{self.command}` with {made}."]
        lines += ["Errors are in [0, 1] units after clamping (peak 1), PSNR with them."]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """One page with everything in it."""
        from equivae.reporting.page import comparison_page

        return comparison_page(self)

    def charts(self) -> Iterator[tuple[str, Figure]]:
        """The curves by name: `comparison`, `sweep_<transform>` of sweeps, `spectrum`."""
        from equivae.reporting import charts

        colours = charts.series_colours(len(self.metrics))
        yield "comparison", charts.draw_comparison(self.metrics, colours)
        for name in dict.fromkeys(name for one in self.metrics.values() for name in one.sweeps):
            there = [(k, m, c) for (k, m), c in zip(self.metrics.items(), colours, strict=True)]
            there = [(k, m, c) for k, m, c in there if name in m.sweeps]
            sweeps = {label: m.sweeps[name] for label, m, _ in there}
            yield f"sweep_{name}", charts.draw_sweep(sweeps, [c for _, _, c in there])
        latents = {label: one.latents for label, one in self.metrics.items()}
        spectra = {
            label: (one.spectrum, colour)
            for (label, one), colour in zip(latents.items(), colours, strict=True)
            if one and one.spectrum
        }
        images = [one.image_spectrum for one in latents.values() if one and one.image_spectrum]
        if spectra:
            lines = {**spectra, "images": (images[0], charts.MUTED)}
            yield "spectrum", charts.draw_spectra(lines)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `comparison.json`, `comparison.md`, `comparison.html` and the curves as PNG.

        Every file is written beside and renamed. Raises `InputError` if the folder holds a comparison
        already, unless `overwrite` is set.
        """
        texts = {
            "comparison.json": json.dumps(self.to_dict(), indent=1) + "\n",
            "comparison.md": self.to_markdown(),
            "comparison.html": self.to_html(),
        }
        figures = {f"{name}.png": figure for name, figure in self.charts()}
        return save_files(folder, texts, figures, overwrite=overwrite)


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
    sweep_samples: int = 4,
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
    options = MeasureOptions(
        batch_size=eval_batch_size,
        sweep_samples=sweep_samples,
        features=features,
        lpips=lpips,
        seed=seed,
        progress=progress,
    )
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

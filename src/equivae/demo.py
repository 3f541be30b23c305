"""`equivae demo`: the embedded VAE and 180° rotation, every way to it, in minutes on two CPU cores."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from equivae import zoo
from equivae.autoencoder import Autoencoder, measuring
from equivae.autoencoder.precision import has_bf16_units
from equivae.data import ImageDataset, dead_leaves, load_images
from equivae.evaluation.metrics import MeasureOptions, Metrics, measure
from equivae.evaluation.roundtrip import reconstruct, reencode
from equivae.files.writing import claim_folder, write_beside
from equivae.operators import fit_latent_op
from equivae.processes import process_state
from equivae.reporting.demo_page import demo_page
from equivae.reporting.pictures import picture
from equivae.symmetry import symmetrize
from equivae.training import FinetuneResult, finetune
from equivae.training.config import make_config
from equivae.transforms import Transform, get_transform
from equivae.units import psnr, unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PAGE",
    "Choice",
    "DemoResult",
    "Ways",
    "demo",
    "finetune_fitted",
    "finetune_plain",
    "training_images",
]

TRAINING_IMAGES, RESOLUTION = 400, 64
# The points that benchmarks/demo_frontier.py found best in the time.
PLAIN: dict[str, Any] = {
    "max_train_steps": 300,
    "train_batch_size": 4,
    "learning_rate": 1e-3,
    # Reconstruction counts more: the gap closes fast, what reconstruction loses comes back slowly.
    "weight": 0.5,
    "sweep_samples": 1,
}
FITTED: dict[str, Any] = {
    "recipe": "fitted",
    "max_train_steps": 150,
    "train_batch_size": 4,
    # Procedural images are unlike photographs, so the decoder is held to what it was.
    "distillation": 1.0,
}
# A validation costs as much as 18 steps, and the report measures the same photographs. At 64 px this VAE
# is no faster in channels-last order.
SHARED: dict[str, Any] = {"validation_steps": 10**6, "channels_last": False}
SUBFOLDERS = ("fitted", "symmetrized", "fitted-finetuned", "finetuned")
PAGE, _CHOICES = "demo.html", "choices"


@dataclass(frozen=True)
class Choice:
    """One way to an equivariant VAE, measured on the demo's photographs.

    Attributes:
        name: `"untouched"`, `"re-encoded"`, `"fitted"`, `"symmetrized"`, `"fitted, fine-tuned"` or
            `"fine-tuned"`.
        latent_op: what turns a latent: `"plain"`, `"fitted"`, or `"none"`, where
            the latent is decoded, and the turned picture encoded again.
        seconds: what it took to make, in wall time.
        reconstruction_psnr: in dB.
        round_trip_psnr: under rot180, in dB.
        latents_stay_valid: whether the encoder is the untouched one, so that latents and diffusion
            models of the untouched VAE can still be used.
        folder: where it lies in the demo's folder; `None` where nothing was made.
    """

    name: str
    latent_op: str
    seconds: float
    reconstruction_psnr: float
    round_trip_psnr: float
    latents_stay_valid: bool
    folder: str | None

    @property
    def gap_db(self) -> float:
        """Reconstruction PSNR minus round-trip PSNR."""
        return self.reconstruction_psnr - self.round_trip_psnr


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        choices: every way, the untouched VAE first.
        finetuned: the fine-tune for the plain latent op, with its report.
        pictures: name of a choice to the decode of a photograph's turned latent, `(3, H, W)` in [0, 1].
        photograph: that photograph.
    """

    choices: list[Choice]
    finetuned: FinetuneResult
    pictures: dict[str, Tensor]
    photograph: Tensor

    def __getitem__(self, name: str) -> Choice:
        return next(choice for choice in self.choices if choice.name == name)

    def to_markdown(self) -> str:
        """The table of the choices."""
        head, *rows = self.table()
        lines = [head, ["---"] * len(head), *rows]
        return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)

    def table(self) -> list[list[str]]:
        """Its cells, the head first."""
        head = ["", "reconstruction", "rot180 round trip", "gap", "seconds", "latent op"]
        rows = [
            [
                one.name,
                f"{one.reconstruction_psnr:.2f} dB",
                f"{one.round_trip_psnr:.2f} dB",
                f"{one.gap_db:.2f} dB",
                f"{one.seconds:.0f}",
                one.latent_op,
                "yes" if one.latents_stay_valid else "no",
            ]
            for one in self.choices
        ]
        return [[*head, "old latents stay valid"], *rows]

    def figure(self) -> Figure:
        """A photograph, and what each choice makes of its turned latent."""
        return _draw(self)


def demo(
    output_dir: str | Path = "equivae-demo",
    *,
    seed: int = 0,
    max_train_steps: int | None = None,
    progress: bool = True,
) -> DemoResult:
    """The embedded VAE under 180° rotation: fitted, symmetrized and fine-tuned, beside re-encoding.

    It learns from procedural images and is tested on photographs. Everything is written to the output
    folder: a VAE and a report in each of `fitted/`, `symmetrized/`, `fitted-finetuned/` and `finetuned/`,
    and `demo.html`, `choices.md`, `choices.json` and `choices.png` beside them. The fine-tunes run in
    bf16 where the processor has units for it.

    Args:
        output_dir: a new or empty folder.
        seed: of images and draws.
        max_train_steps: of each of the two fine-tunes, instead of 150 and 300.
        progress: show progress bars.

    Raises `InputError` if the folder holds files already, and for options that no fine-tune takes.

    ```python
    from equivae.demo import demo

    result = demo("demo-out", max_train_steps=1, progress=False)
    print(result.to_markdown())
    assert result["symmetrized"].gap_db < 0.01
    ```
    """
    given: dict[str, Any] = {} if max_train_steps is None else {"max_train_steps": max_train_steps}
    given["seed"] = seed
    for usual in (FITTED, PLAIN):
        options = {**usual, **given}
        make_config(options.pop("recipe", "equivae"), options)
    steps = {**given, "progress": progress}
    folder = claim_folder(output_dir)
    images, vae, plain = training_images(seed), zoo.load(), get_transform("rot180")
    tested = Ways(zoo.photographs(), plain)
    tested.add("untouched", vae, plain)
    tested.add_reencoded(vae)
    fitted, seconds = _timed(
        lambda: fit_latent_op(vae, plain, images, seed=seed, progress=progress)
    )
    fitted.save(folder / "fitted")
    tested.add("fitted", vae, fitted, seconds, folder="fitted")
    made, seconds = _timed(
        lambda: symmetrize(vae, "c2", images=images, seed=seed, progress=progress)
    )
    made.save_pretrained(folder / "symmetrized")
    tested.add("symmetrized", made, plain, seconds, valid=False, folder="symmetrized")
    result, seconds = _timed(lambda: finetune_fitted(folder / "fitted-finetuned", **steps))
    trained = result.transforms[0]
    tested.add_trained("fitted, fine-tuned", result, trained, seconds, valid=True)
    result, seconds = _timed(lambda: finetune_plain(folder / "finetuned", **steps))
    tested.add_trained("fine-tuned", result, plain, seconds, valid=False)
    found = DemoResult(tested.choices, result, tested.pictures, tested.photograph)
    _save(found, folder, seed)
    return found


class Ways:
    """Every way, measured on the photographs, and what it makes of the first one's turned latent."""

    def __init__(self, photographs: Tensor, plain: Transform) -> None:
        self.images, self.plain = load_images(photographs), plain
        self.choices: list[Choice] = []
        self.pictures: dict[str, Tensor] = {}
        self.photograph = unit(photographs[0])

    def add(
        self,
        name: str,
        model: nn.Module,
        transform: Transform,
        seconds: float = 0.0,
        valid: bool = True,
        folder: str | None = None,
    ) -> None:
        """Measure a VAE under a transform."""
        options = MeasureOptions(ceiling=False, progress=False)
        metrics = measure(Autoencoder(model), self.images, [transform], options)
        self._add(name, model, transform, metrics, seconds, valid, folder)

    def add_trained(
        self, name: str, result: FinetuneResult, transform: Transform, seconds: float, valid: bool
    ) -> None:
        """A fine-tune, whose report measured these photographs."""
        metrics, folder = result.report.metrics, result.output_dir.name
        self._add(name, result.vae, transform, metrics, seconds, valid, folder)

    def _add(
        self,
        name: str,
        model: nn.Module,
        transform: Transform,
        metrics: Metrics,
        seconds: float,
        valid: bool,
        folder: str | None,
    ) -> None:
        (panel,) = picture(Autoencoder(model), self.images, [(0, "")], [transform])
        trip = metrics.transforms[transform.name].round_trip_psnr
        latent_op = "plain" if transform is self.plain else "fitted"
        reconstruction = metrics.reconstruction_psnr
        self.choices.append(Choice(name, latent_op, seconds, reconstruction, trip, valid, folder))
        self.pictures[name] = panel.moved

    def add_reencoded(self, model: nn.Module) -> None:
        """Measure what can be had without a latent op: decode, turn, encode."""
        view, errors = Autoencoder(model), []
        with measuring(model):
            for i in range(len(self.images)):
                batch = reconstruct(view, self.images[i][None])
                decoded = view.decode(reencode(view, batch, self.plain)[0])
                self.pictures.setdefault("re-encoded", unit(decoded)[0])
                errors.append(
                    float((unit(decoded) - self.plain.pixel(batch.plain)).square().mean())
                )
        reconstruction = self.choices[0].reconstruction_psnr
        trip = psnr(sum(errors) / len(errors))
        self.choices.append(Choice("re-encoded", "none", 0.0, reconstruction, trip, True, None))


def _save(found: DemoResult, folder: Path, seed: int) -> None:
    """The table, the picture and the page, beside the folders."""
    rows = [{**asdict(one), "gap_db": one.gap_db} for one in found.choices]
    figure = found.figure()
    write_beside(folder / f"{_CHOICES}.png", lambda path: figure.savefig(path))
    texts = {
        PAGE: demo_page(found.table(), _shown(found), SUBFOLDERS, {"seed": seed}),
        f"{_CHOICES}.json": json.dumps(rows, indent=1),
        f"{_CHOICES}.md": found.to_markdown(),
    }
    for name, text in texts.items():
        write_beside(folder / name, lambda path, text=text: _write(path, text))  # type: ignore[misc]


def training_images(seed: int = 0) -> ImageDataset:
    """What the demo learns from: procedural images that the embedded VAE was not trained on."""
    return load_images(_drawn(TRAINING_IMAGES, seed + 1_000))


@functools.lru_cache(maxsize=1)
def _drawn(count: int, seed: int) -> Tensor:
    """Every way of the demo takes these images several times, and drawing one costs a decode."""
    return dead_leaves(count, RESOLUTION, seed)


def finetune_plain(output_dir: str | Path, **options: Any) -> FinetuneResult:
    """The demo's fine-tune for the plain latent op; options as in `finetune`."""
    return _finetune(output_dir, {**PLAIN, **options})


def finetune_fitted(output_dir: str | Path, **options: Any) -> FinetuneResult:
    """The demo's fine-tune from a fitted latent op; options as in `finetune`."""
    return _finetune(output_dir, {**FITTED, **options})


def _finetune(output_dir: str | Path, options: dict[str, Any]) -> FinetuneResult:
    fast = process_state().device.type == "cpu" and has_bf16_units()
    options = {**SHARED, "mixed_precision": "bf16" if fast else "no", **options}
    return finetune(
        zoo.load(),
        training_images(options.get("seed", 0)),
        transforms="rot180",
        output_dir=output_dir,
        validation_images=zoo.photographs(),
        **options,
    )


_Made = TypeVar("_Made")


def _timed(make: Callable[[], _Made]) -> tuple[_Made, float]:
    began = time.perf_counter()
    made = make()
    return made, round(time.perf_counter() - began, 1)


def _shown(result: DemoResult) -> list[tuple[str, Tensor, str]]:
    """Title, picture and number of the photograph and of every way."""
    shown = [("the photograph turned", torch.rot90(result.photograph, 2, (-2, -1)), "")]
    for one in result.choices:
        below = f"{one.round_trip_psnr:.1f} dB"
        below += f" of {one.reconstruction_psnr:.1f} dB" if one.gap_db > 0.005 else ", no gap"
        shown.append((one.name, result.pictures[one.name], below))
    return shown


def _draw(result: DemoResult) -> Figure:
    from matplotlib.figure import Figure

    shown = _shown(result)
    figure = Figure(figsize=(2.5 * len(shown), 3.2), dpi=130, facecolor="white")
    for axis, (title, shot, below) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        axis.imshow(shot.permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=11, color="#1f2328")
        axis.set_xlabel(below, fontsize=9.5, color="#57606a")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.tight_layout(pad=0.7, w_pad=0.4)
    return figure


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

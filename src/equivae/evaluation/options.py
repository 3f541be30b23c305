"""Which numbers are taken, and how: what `evaluate`, `compare` and `measure` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equivae.errors import InputError
from equivae.evaluation.features import check_backbone, check_distance
from equivae.options import BATCH, SEED, Options, at_least, check_path, option, quoted

__all__ = ["MeasureOptions", "NumberOptions"]

_STATISTICS = ".npz"


def check_reference(name: str, value: Any) -> None:
    """`InputError` unless it is a folder or a statistics file that is there, or nothing."""
    if value is None:
        return
    if not isinstance(value, (str, Path)):
        raise InputError(
            f"{name} must be a folder of images or an .npz file with mu and sigma, got {quoted(value)}."
        )
    check_path(name, value)
    path = Path(value)
    if not path.exists():
        raise InputError(f"{name} {path} does not exist; pass a folder of images or an .npz file.")
    if path.is_file() and path.suffix != _STATISTICS:
        raise InputError(
            f"{name} {path} is neither a folder nor an {_STATISTICS} file; pass one of them."
        )


@dataclass(frozen=True)
class NumberOptions(Options):
    """Which numbers are taken, and how.

    Attributes:
        protocol: `"equivae"`, or `"imagenet"` for the field's numbers beside ours, see
            `equivae.evaluation.protocols`.
        metrics: how many numbers of the latent space: `"fast"` for those that cost next to nothing, `"paper"`
            for those that papers name as well, `"all"` for those that need many decodes, too.
        reencode: decode `E(T(D(E(x))))` as well, for what can be had without a latent op, and take the time.
        features: a backbone, see `resolve_features`.
        lpips: a perceptual distance, see `resolve_lpips`.
        rfid_reference: a folder of images or a statistics file (`.npz` with `mu` and `sigma`), against which
            the imagenet protocol takes the rFID of the reconstructions; by default the images themselves.
        seed: of random transforms, of the bootstrap and of the tests.
        progress: show a progress bar.
    """

    protocol: Literal["equivae", "imagenet"] = option(
        "equivae", "imagenet: also the PSNR, SSIM, LPIPS and rFID that papers report."
    )
    metrics: Literal["fast", "paper", "all"] = option(
        "fast", "Numbers of the latent space: the cheap ones, those of papers too, or all."
    )
    reencode: bool = option(
        False, "Measure decoding, transforming and encoding again, and its time."
    )
    features: Any = option(
        None, "inception, for rFID and feature cosine; see equivae[metrics].", check=check_backbone
    )
    lpips: Any = option(
        None, "alex, vgg or squeeze, for LPIPS; see equivae[metrics].", check=check_distance
    )
    rfid_reference: Any = option(
        None,
        "A folder or an .npz file with mu and sigma, for the imagenet protocol's rFID.",
        check=check_reference,
    )
    seed: int = option(0, "Seed of random transforms, of intervals and of tests.", range=SEED)
    progress: bool = option(True, "Show a progress bar.")

    def check(self) -> None:
        if self.rfid_reference is not None and self.protocol != "imagenet":
            raise InputError(
                "rfid_reference is what the imagenet protocol's rFID is taken against; pass "
                "protocol='imagenet' as well, or leave it out."
            )


@dataclass(frozen=True)
class MeasureOptions(NumberOptions):
    """What `measure` takes beside the basic numbers.

    Attributes:
        batch_size: images per encoder and decoder call.
        ceiling: decode `E(T x)` as well, for the best that the decoder could do.
        sweep_samples: images on which angles and scales are swept; 0 for none.
        sweep_all: sweep both; else only those of the transforms that are measured.
    """

    batch_size: int = option(4, "Images per call.", range=BATCH)
    ceiling: bool = option(True, "Decode E(T x) as well.")
    sweep_samples: int = option(
        0, "Images on which angles and scales are swept.", range=at_least(0)
    )
    sweep_all: bool = option(True, "Sweep both, whatever the transforms.")

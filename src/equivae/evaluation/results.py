"""What a measurement gives: numbers of one VAE on one set of images, and pictures of a few of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

__all__ = [
    "GroupMetrics",
    "LatentStatistics",
    "Metrics",
    "Panel",
    "ProtocolMetrics",
    "Spread",
    "Sweep",
    "TransformMetrics",
]


@dataclass(frozen=True)
class Spread:
    """One number over the images.

    Attributes:
        value: the number that the tables show: the mean over the images; of a PSNR, the PSNR of the mean
            error.
        median: over the images.
        low: lower end of the 95% interval of `value`, by the studentised bootstrap with 1,000 resamples of
            the images; below 100 images it covers less than it says, below 8 it is unreliable.
        high: its upper end.
        worst: the number of the worst image.
        worst_image: its name.
    """

    value: float
    median: float
    low: float
    high: float
    worst: float
    worst_image: str


@dataclass(frozen=True)
class ProtocolMetrics:
    """The imagenet protocol's numbers of a reconstruction, or of a round trip.

    Attributes:
        psnr: mean of the images' own PSNR in dB, over 8 bits: `clamp(127.5 x + 128, 0, 255)`, truncated.
        ssim: torchmetrics' structural similarity with `data_range=(-1, 1)`. `None` for signals that are no
            images.
        lpips: learned perceptual distance, `None` without a network.
        rfid: Fréchet distance of 8-bit images, `None` without a network.
        gap_db: mean over the images of reconstruction PSNR minus round-trip PSNR; `None` for reconstructions.
    """

    psnr: float
    ssim: float | None = None
    lpips: float | None = None
    rfid: float | None = None
    gap_db: float | None = None


@dataclass(frozen=True)
class TransformMetrics:
    """One transform's errors, means over the images. Errors in [0, 1] units, after clamping.

    Attributes:
        round_trip_mse: `MSE(T⁻¹ D(ρ E(x)), x)`; for a transform that interpolates or has no inverse
            `MSE(D(ρ E(x)), T x)`, so that no resampling error is counted.
        round_trip_psnr: its PSNR in dB.
        round_trip_ssim: structural similarity of the same two images (Wang et al., 2004; 11x11 window).
            `None` for signals that are no images.
        equivariance_gap_db: reconstruction PSNR minus round-trip PSNR, inside the same mask.
        encoder_relative_error: `‖E(T x) - ρ E(x)‖ / ‖E(T x)‖`, inside the mask.
        round_trip_ms_ssim: over five scales (Wang et al., 2003); `None` below 176 pixels.
        encoder_cosine: cosine of `E(T x)` and `ρ E(x)`, inside the mask.
        ceiling_mse: the round trip's error when the moved image itself is encoded: of `D(E(T x))`. `None`
            where it was not measured.
        ceiling_psnr: its PSNR in dB.
        reconstruction_psnr: reconstruction PSNR inside the transform's mask, from which the gap is taken.
        round_trip_feature_cosine: cosine of the features of the two images, `None` without a backbone.
        round_trip_rfid: Fréchet distance between the features of the two sets of images.
        round_trip_lpips: learned perceptual distance of the two images.
        reencoded_mse: what can be had without a latent op: of `D(E(T(D(E(x)))))`, the decoded picture moved
            and encoded again. `None` where it was not measured.
        reencoded_psnr: its PSNR in dB.
        latent_op_seconds: time of the latent op for one image, median over the batches; with re-encoding.
        reencoded_seconds: time of decoding, moving and encoding again for one image, likewise.
        latent_op: which it is: `"plain"`, `"fitted"`, or `"own"` for one that this library did not make.
        plain_transform: the one with the plain latent op that a fitted one belongs to; `None` for others.
        imagenet: the same round trip by the imagenet protocol, `None` under the other.
    """

    round_trip_mse: float
    round_trip_psnr: float
    round_trip_ssim: float | None
    equivariance_gap_db: float
    encoder_relative_error: float
    round_trip_ms_ssim: float | None = None
    encoder_cosine: float | None = None
    ceiling_mse: float | None = None
    ceiling_psnr: float | None = None
    reconstruction_psnr: float | None = None
    round_trip_feature_cosine: float | None = None
    round_trip_rfid: float | None = None
    round_trip_lpips: float | None = None
    reencoded_mse: float | None = None
    reencoded_psnr: float | None = None
    latent_op_seconds: float | None = None
    reencoded_seconds: float | None = None
    latent_op: str = "plain"
    plain_transform: str | None = None
    imagenet: ProtocolMetrics | None = None


@dataclass(frozen=True)
class GroupMetrics:
    """A group as a whole: means over its elements beside the identity.

    Attributes:
        elements: their names.
        round_trip_mse: mean over elements and images.
        round_trip_psnr: its PSNR in dB.
        equivariance_gap_db: PSNR of the mean reconstruction error minus that PSNR.
        worst_gap_db: the gap of the worst element.
        worst_element: its name.
    """

    elements: list[str]
    round_trip_mse: float
    round_trip_psnr: float
    equivariance_gap_db: float
    worst_gap_db: float
    worst_element: str


@dataclass(frozen=True)
class Sweep:
    """A transform over a range of its parameter, on a few of the images.

    Attributes:
        transform: its registered name, as `"rotate"`.
        parameter: which parameter is swept, as `"angle"`.
        values: of that parameter.
        round_trip_psnr: PSNR in dB of `D(ρ E(x))` against `T x`, inside the mask, one per value.
        reconstruction_psnr: PSNR in dB of `T D(E(x))` against `T x`, inside the same mask: what a VAE
            without a gap would have.
        images: how many.
    """

    transform: str
    parameter: str
    values: list[float]
    round_trip_psnr: list[float]
    reconstruction_psnr: list[float]
    images: int


@dataclass(frozen=True)
class LatentStatistics:
    """What the latents look like.

    Attributes:
        channel_means: of every channel, over images and places.
        channel_deviations: standard deviation of every channel.
        effective_dimension: participation ratio `(tr C)² / tr(C²)` of the channels' covariance `C`: the
            number of channels when all vary alike and independently, 1 when all say the same.
        smoothness: correlation of neighbouring cells: 1 for a constant, 0 for white noise.
        spectrum: energy of the latents' block DCT by diagonal, `u + v` from 1 on, as shares of the whole.
        image_spectrum: the same of the images, on their own grid.
        profile: amplitudes of the latents' block DCT in zigzag order, relative to the constant's, which is
            first: as Skorokhodov et al. (2502.14831) order a spectrum.
        image_profile: the same of the images.
        drift: `‖E(x) - E₀(x)‖ / ‖E₀(x)‖` against the baseline's encoder, mean over images; `None`
            without a baseline, or with one whose latents have another shape.
        drift_images: over how many images.
    """

    channel_means: list[float]
    channel_deviations: list[float]
    effective_dimension: float
    smoothness: float
    spectrum: list[float]
    image_spectrum: list[float]
    drift: float | None = None
    drift_images: int = 0
    profile: list[float] = field(default_factory=list)
    image_profile: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Metrics:
    """What one VAE does on one set of images.

    Attributes:
        images: how many.
        reconstruction_mse: `MSE(D(E(x)), x)` in [0, 1] units, after clamping.
        reconstruction_psnr: its PSNR in dB.
        reconstruction_ssim: structural similarity.
        transforms: name to `TransformMetrics`.
        per_image: numbers of every image: `"reconstruction_mse"`, `"round_trip_mse/<transform>"` and so
            on, each a list in the order of `names`.
        names: what the images are called.
        reconstruction_ms_ssim: over five scales; `None` below 176 pixels.
        groups: name to `GroupMetrics`, of every group whose elements were all measured.
        sweeps: name of a transform to its `Sweep`, when sweeps were asked for.
        spreads: median, worst image and 95% interval of the most important numbers, under
            `"reconstruction_psnr"`, `"round_trip_psnr/<transform>"`, `"equivariance_gap_db/<transform>"`
            and so on.
        latents: statistics of the latents.
        reconstruction_feature_cosine: cosine of the features of `x` and `D(E(x))`, with a backbone.
        reconstruction_rfid: Fréchet distance between the features of both sets of images.
        reconstruction_lpips: learned perceptual distance of `x` and `D(E(x))`.
        non_finite: under the keys of `per_image`, of how many images the number is NaN or infinite; empty
            for a sound VAE. Means over such images are NaN.
        imagenet: the reconstruction by the imagenet protocol, `None` under the other.
        latent_metrics: numbers of the latent space by name, see "Numbers of the latent space".
        conventions: what the numbers mean, by what they are called in tables.
        notes: what was not measured, and how to have it measured.
    """

    images: int
    reconstruction_mse: float
    reconstruction_psnr: float
    reconstruction_ssim: float | None
    transforms: dict[str, TransformMetrics] = field(default_factory=dict)
    per_image: dict[str, list[float]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    reconstruction_ms_ssim: float | None = None
    groups: dict[str, GroupMetrics] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)
    latents: LatentStatistics | None = None
    reconstruction_feature_cosine: float | None = None
    reconstruction_rfid: float | None = None
    reconstruction_lpips: float | None = None
    non_finite: dict[str, int] = field(default_factory=dict)
    imagenet: ProtocolMetrics | None = None
    latent_metrics: dict[str, float] = field(default_factory=dict)
    conventions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """Pictures of one image under one transform, each `(C, H, W)` in [0, 1] on the CPU, and its latents.

    Attributes:
        image: its name.
        transform: the transform's name.
        original: `x`.
        reconstruction: `D(E(x))`.
        moved: `D(ρ E(x))`.
        back: that moved back, `None` without an inverse.
        rank: `"best"`, `"median"`, `"worst"`, by round-trip error.
        latent: `E(x)`, `(c, h, w)`.
        moved_latent: `ρ E(x)`.
        encoded_moved: `E(T x)`.
        target: `T x`, what `moved` shall be.
        latent_op: `"plain"`, `"fitted"` or `"own"`.
    """

    image: str
    transform: str
    original: Tensor
    reconstruction: Tensor
    moved: Tensor
    back: Tensor | None
    rank: str = ""
    latent: Tensor | None = None
    moved_latent: Tensor | None = None
    encoded_moved: Tensor | None = None
    target: Tensor | None = None
    latent_op: str = "plain"

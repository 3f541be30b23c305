"""Whether a fitted latent op beats the plain one on the same VAE: paired by image, with a test."""

from __future__ import annotations

from dataclasses import replace

from equivae.evaluation.pairing import Difference, differences, holm
from equivae.evaluation.results import Metrics

__all__ = ["fitted_against_plain"]


def fitted_against_plain(metrics: Metrics, seed: int = 0) -> dict[str, Difference]:
    """Round-trip PSNR of every fitted transform minus that of its plain one, in dB, by the fitted one's name.

    Args:
        metrics: of one VAE. A fitted transform counts where its plain one was measured as well.
        seed: of the resamples and exchanges.

    The p values are adjusted for the number of fitted transforms (Holm).

    ```python
    import equivae
    from equivae.evaluation.against_plain import fitted_against_plain

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    t = equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False)
    report = equivae.evaluate(vae, images, ["hflip", t], panels=0, progress=False)
    assert fitted_against_plain(report.metrics)["hflip_fitted"].is_larger_than_noise
    ```
    """
    found: dict[str, Difference] = {}
    for name, trip in metrics.transforms.items():
        plain = trip.plain_transform
        if plain is None or plain not in metrics.transforms:
            continue
        pair = [_round_trip(metrics, which, name) for which in (plain, name)]
        found.update((name, one) for one in differences(*pair, seed=seed).values())
    tested = [name for name, one in found.items() if not one.is_identical]
    return found | dict(zip(tested, holm([found[name] for name in tested]), strict=True))


def _round_trip(metrics: Metrics, transform: str, name: str) -> Metrics:
    """The round trip of one transform alone, under a name."""
    column = metrics.per_image.get(f"round_trip_mse/{transform}")
    return replace(
        metrics,
        transforms={name: metrics.transforms[transform]},
        per_image={} if column is None else {f"round_trip_mse/{name}": column},
    )

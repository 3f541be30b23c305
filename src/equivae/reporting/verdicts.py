"""One sentence about what was measured, which names the latent op that it speaks of and no infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping

from equivae.evaluation.pairing import Difference, differences
from equivae.evaluation.results import Metrics, TransformMetrics
from equivae.reporting.numbers import fixed, number, p_value, signed
from equivae.reporting.tables import count_images
from equivae.units import difference_db, rank

__all__ = ["verdict_of", "verdict_of_several", "worst_transform"]


def worst_transform(metrics: Metrics) -> tuple[str, TransformMetrics]:
    """That with the largest gap, or the first whose gap is not a number."""
    return max(
        metrics.transforms.items(),
        key=lambda item: rank(item[1].equivariance_gap_db, larger_is_better=False),
    )


def verdict_of(now: Metrics, before: Metrics | None, compared: Mapping[str, Difference]) -> str:
    """How far the worst transform of a VAE is from a reconstruction, and how far it was."""
    count = count_images(now.images)
    if math.isnan(now.reconstruction_psnr):
        return (
            f"Nothing can be said of this VAE: its output is NaN or infinite for {_broken(now)} of "
            f"{count}."
        )
    reconstruction = _words(now.reconstruction_psnr)
    if not now.transforms:
        return f"Reconstruction is {reconstruction} over {count}."
    name, worst = worst_transform(now)
    which = f"under {name} ({worst.latent_op} latent op)"
    which += "" if len(now.transforms) == 1 else ", the worst transform,"
    if math.isnan(worst.equivariance_gap_db):
        return (
            f"There is no equivariance gap {which} to tell: the round trip has no finite error for "
            f"{_broken(now)} of {count}; reconstruction is {reconstruction}."
        )
    trip, gap = _words(worst.round_trip_psnr), worst.equivariance_gap_db
    if before is None or name not in before.transforms:
        if math.isinf(gap):
            return (
                f"The round trip {which} is {trip}, reconstruction {reconstruction}, over {count}."
            )
        return (
            f"The equivariance gap {which} is {number(gap, 'dB')}: the round trip has {trip}, "
            f"reconstruction {reconstruction}, over {count}."
        )
    old = before.transforms[name]
    if math.isnan(old.equivariance_gap_db):
        return (
            f"The round trip {which} is {trip}, reconstruction {reconstruction}, over {count}; the VAE "
            "before has no finite numbers."
        )
    change = difference_db(now.reconstruction_psnr, before.reconstruction_psnr)
    if not all(map(math.isfinite, (gap, old.equivariance_gap_db, change))):
        return (
            f"The round trip {which} went from {_words(old.round_trip_psnr)} to {trip}, reconstruction from "
            f"{_words(before.reconstruction_psnr)} to {reconstruction}, over {count}."
        )
    moved = compared.get(f"equivariance_gap_db/{name}")
    reconstructed = compared.get("reconstruction_psnr")
    if moved and moved.is_identical and reconstructed and reconstructed.is_identical:
        return (
            f"The VAE and the baseline give the same images: the equivariance gap {which} is "
            f"{number(gap, 'dB')} and reconstruction {reconstruction} for both, over {count}."
        )
    noise = _noise(moved)
    if fixed(old.equivariance_gap_db, 2) == fixed(gap, 2):
        return (
            f"The equivariance gap {which} stayed at {number(gap, 'dB')}{noise} while reconstruction changed "
            f"by {signed(change, 'dB')}{_noise(reconstructed)}, over {count}."
        )
    return (
        f"The equivariance gap {which} went from {fixed(old.equivariance_gap_db, 2)} to {fixed(gap, 2)} dB"
        f"{noise} while reconstruction changed by {signed(change, 'dB')}"
        f"{_noise(reconstructed)}, over {count}."
    )


def verdict_of_several(metrics: Mapping[str, Metrics], seed: int = 0) -> str:
    """Whose round trip is the best, by its worst transform; NaN is the worst."""
    count = count_images(next(iter(metrics.values())).images)
    sound = {label: one for label, one in metrics.items() if not _has_nan(one)}
    broken = [label for label in metrics if label not in sound]
    if not sound:
        return f"None of these VAEs gives finite numbers over {count}."
    without = f"; {', '.join(broken)}: no finite numbers" if broken else ""
    worst = {
        label: min((t.round_trip_psnr, name) for name, t in one.transforms.items())
        for label, one in sound.items()
        if one.transforms
    }
    if not worst:
        order = sorted(sound, key=lambda label: -sound[label].reconstruction_psnr)
        value = _words(sound[order[0]].reconstruction_psnr)
        values = {x: sound[x].reconstruction_psnr for x in order}
        ahead, is_clear = _ahead(sound, order, values, "", seed)
        if not is_clear:
            return (
                f"No VAE reconstructs best by more than noise: {order[0]} has {value}{ahead}, over "
                f"{count}{without}."
            )
        return f"{order[0]} reconstructs best: {value}{ahead}, over {count}{without}."
    order = sorted(worst, key=lambda label: -worst[label][0])
    psnr, name = worst[order[0]]
    kind = sound[order[0]].transforms[name].latent_op
    ahead, is_clear = _ahead(sound, order, {label: worst[label][0] for label in order}, name, seed)
    found = f"{_words(psnr)} under {name} ({kind} latent op), its worst transform{ahead}"
    if not is_clear:
        return (
            f"No VAE has the best round trip by more than noise: {order[0]} has {found}, over "
            f"{count}{without}."
        )
    return f"{order[0]} has the best round trip: {found}, over {count}{without}."


def _ahead(
    sound: Mapping[str, Metrics],
    order: list[str],
    values: Mapping[str, float],
    transform: str,
    seed: int,
) -> tuple[str, bool]:
    """How far the best is before the next, and whether that may be called the best: not if it is noise."""
    if len(order) < 2:
        return "", True
    best, following = order[:2]
    lead = difference_db(values[best], values[following])
    if not math.isfinite(lead):
        return f"; the next, {following}, has {_words(values[following])}", True
    if number(lead, "dB") == "0.00 dB":
        return f", as {following} has", True
    key = f"round_trip_psnr/{transform}" if transform else "reconstruction_psnr"
    first, second = sound[following], sound[best]
    found = {}
    if first.names == second.names and first.per_image and second.per_image:
        found = differences(
            first, second, seed=seed
        )  # all, as in the tables: p is adjusted for all
    one = found.get(key)
    ahead = f", {number(lead, 'dB')} above the next, {following}{_noise(one)}"
    return ahead, one is None or one.is_larger_than_noise


def _noise(difference: Difference | None) -> str:
    if difference is None:
        return ""
    what = "larger than noise" if difference.is_larger_than_noise else "within noise"
    return f" ({what}, adjusted p{p_value(difference.adjusted_p)})"


def _words(psnr: float) -> str:
    """A PSNR in dB; what has no error has no number."""
    return "without error" if math.isinf(psnr) and psnr > 0 else number(psnr, "dB")


def _has_nan(metrics: Metrics) -> bool:
    trips = [one.round_trip_psnr for one in metrics.transforms.values()]
    return any(map(math.isnan, [metrics.reconstruction_psnr, *trips]))


def _broken(metrics: Metrics) -> int:
    """How many images have a number that is none."""
    columns = [metrics.per_image[key] for key in metrics.non_finite]
    return sum(not all(map(math.isfinite, row)) for row in zip(*columns, strict=True))

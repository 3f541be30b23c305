"""Numbers of the latent space, one a file: formula, source, unit and direction of each."""

from equivae.evaluation.latent_metrics.base import Level, Metric, Moments, PerImage
from equivae.evaluation.latent_metrics.cds import CDS
from equivae.evaluation.latent_metrics.condition import CONDITION_NUMBER
from equivae.evaluation.latent_metrics.effective_rank import EFFECTIVE_RANK
from equivae.evaluation.latent_metrics.energy import SEC
from equivae.evaluation.latent_metrics.flat_field import (
    FLAT_FIELD,
    FlatField,
    OfFlatField,
    flat_field,
)
from equivae.evaluation.latent_metrics.kurtosis import KURTOSIS
from equivae.evaluation.latent_metrics.lds import LDS
from equivae.evaluation.latent_metrics.lie import LEE_ROTATION, LEE_SCALE, LEE_SHIFT
from equivae.evaluation.latent_metrics.rotation import EQ_R
from equivae.evaluation.latent_metrics.shift import SHIFT_PSNR
from equivae.evaluation.latent_metrics.translation import EQ_T
from equivae.evaluation.latent_metrics.volume import VOLUME_RATIO
from equivae.evaluation.latent_metrics.window_correlation import WINDOW_CORRELATION

__all__ = [
    "LATENT_METRICS",
    "FlatField",
    "Level",
    "Metric",
    "Moments",
    "OfFlatField",
    "PerImage",
    "chosen",
    "flat_field",
]

LATENT_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *(SEC, EFFECTIVE_RANK, CONDITION_NUMBER, VOLUME_RATIO, KURTOSIS),
        *(LDS, CDS, WINDOW_CORRELATION),
        *(EQ_T, EQ_R, SHIFT_PSNR, *FLAT_FIELD),
        *(LEE_ROTATION, LEE_SHIFT, LEE_SCALE),
    )
}
_LEVELS = ("fast", "paper", "all")


def chosen(level: Level) -> dict[str, Metric]:
    """The metrics of a level and of those below."""
    taken = _LEVELS[: _LEVELS.index(level) + 1]
    return {name: one for name, one in LATENT_METRICS.items() if one.level in taken}

"""What the imagenet protocol's rFID is taken against: a folder of images, or a file of their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder
from equivae.data.sources import collate, load_images
from equivae.errors import InputError, first_line
from equivae.evaluation.features import Backbone, FeatureSums, check_features
from equivae.evaluation.protocols import eight_bit
from equivae.processes import process_state
from equivae.units import unit

__all__ = ["Statistics", "reference_features"]


class Statistics:
    """Mean and covariance of features from a file, as pytorch-fid and ADM write them."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, covariance

    def gaussian(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.covariance


def reference_features(
    reference: str | Path, backbone: Backbone, vae: Autoencoder, side: int, batch_size: int
) -> FeatureSums | Statistics:
    """The features of a reference, shared out among the processes where they have to be computed.

    Args:
        reference: a folder of images, or an `.npz` file with `mu` `(D,)` and `sigma` `(D, D)`.
        backbone: gives the features.
        vae: tells the device and the kind of images.
        side: of the images.
        batch_size: images per call.

    Raises `InputError` for a file that holds something else.
    """
    path = Path(reference)
    if path.is_file():
        return _read(path)
    images = load_images(path, resolution=side, channels=vae.image_channels, resize="imagenet")
    sums = FeatureSums()
    starts = list(range(0, len(images), batch_size))
    with torch.no_grad(), process_state().split_between_processes(starts) as mine:
        batches = [list(range(s, min(s + batch_size, len(images)))) for s in mine]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        for batch in loader:
            pictures = eight_bit(unit(batch.to(vae.device))) / 255
            sums.add(check_features(backbone(pictures), len(batch)))
    whole = FeatureSums()
    for part in gather_object([sums]):
        whole.merge(part)
    return whole


def _read(path: Path) -> Statistics:
    try:
        with np.load(path, allow_pickle=False) as content:
            mean, covariance = (_matrix(content[name]) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"rfid_reference {path} holds no statistics ({first_line(error)}); pass an .npz file with the "
            "arrays mu and sigma, or a folder of images."
        ) from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise InputError(
            f"rfid_reference {path} has mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}; expected "
            "(D,) and (D, D)."
        )
    return Statistics(mean, covariance)


def _matrix(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))

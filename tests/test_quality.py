"""Error and structural similarity against scikit-image, kornia and pytorch-msssim."""

from __future__ import annotations

import kornia.metrics
import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from equivae.evaluation.quality import mean_inside, similarity
from equivae.units import psnr, unit
from models import noise


def pair(batch: int, channels: int, height: int, width: int):
    """Smooth images and the same with a little noise, in [0, 1]."""
    a = torch.nn.functional.avg_pool2d(noise(batch, channels, height + 4, width + 4), 5, 1) + 0.5
    return a.clamp(0, 1), (a + noise(*a.shape, seed=1, scale=0.1)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(2, 3, 48, 64), (1, 1, 33, 20), (1, 3, 11, 11)])
def test_against_scikit_image_and_kornia(shape):
    a, b = pair(*shape)
    found, none = similarity(a, b)
    assert none is None
    error = mean_inside((a - b).square(), None)
    whole = kornia.metrics.ssim(a, b, 11, 1.0, eps=0.0, padding="valid").mean((1, 2, 3))
    assert torch.allclose(found, whole, atol=1e-5)
    for i in range(len(a)):
        x, y = a[i].numpy(), b[i].numpy()
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected = structural_similarity(x, y, channel_axis=0, data_range=1, **options)
        assert float(found[i]) == pytest.approx(expected, abs=1e-5)
        assert float(error[i]) == pytest.approx(mean_squared_error(x, y), abs=1e-5, rel=1e-5)
        peak = peak_signal_noise_ratio(x, y, data_range=1)
        assert psnr(float(error[i])) == pytest.approx(peak, abs=1e-5)
        theirs = float(kornia.metrics.psnr(a[i], b[i], 1.0))
        assert psnr(float(error[i])) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 176, 192), (1, 1, 208, 176)])
def test_ms_ssim_against_pytorch_msssim(shape):
    a, b = pair(*shape)
    expected = ms_ssim(a, b, data_range=1.0, size_average=False)
    assert torch.allclose(similarity(a, b)[1], expected, atol=1e-5)
    assert torch.allclose(similarity(a, a)[1], torch.ones(len(a)), atol=1e-5)


def test_ms_ssim_needs_five_scales():
    assert similarity(*pair(1, 1, 176, 175))[1] is None
    assert similarity(*pair(1, 1, 176, 176))[1] is not None


def test_a_mask_of_everything_changes_nothing():
    a, b = pair(2, 3, 176, 176)
    whole = torch.ones(176, 176, dtype=torch.bool)
    for plain, masked in zip(similarity(a, b), similarity(a, b, whole), strict=True):
        assert torch.allclose(plain, masked, atol=1e-6)


def test_what_lies_outside_the_mask_does_not_count():
    a, b = pair(2, 3, 176, 176)
    mask = torch.zeros(2, 1, 176, 176, dtype=torch.bool)
    mask[..., 20:150, 10:160] = True
    spoilt = torch.where(mask, a, 1 - b)
    for plain, other in zip(similarity(a, b, mask), similarity(spoilt, b, mask), strict=True):
        assert torch.equal(plain, other)
    assert similarity(a, b, mask)[0].ne(similarity(a, b)[0]).all()
    error = mean_inside((spoilt - b).square(), mask)
    inside = (a - b).square()[..., 20:150, 10:160].mean((1, 2, 3))
    assert torch.allclose(error, inside)


def test_inside_a_square_mask_it_is_the_similarity_of_the_square():
    a, b = pair(1, 1, 64, 64)
    b = b.clone()
    b[..., :, 32:] = a[..., :, 32:]  # alike in the right half
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, :32] = True
    left = similarity(a[..., :32], b[..., :32])[0]
    masked = similarity(a, b, mask)[0]
    # Windows that lie partly outside count with their share, and what is outside is alike.
    assert abs(float(masked - left)) < abs(float(similarity(a, b)[0] - left)) / 3


def test_frames_count_alike():
    a, b = pair(6, 3, 24, 24)
    frames = [t.unflatten(0, (2, 3)).transpose(1, 2) for t in (a, b)]
    mask = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.2
    assert torch.allclose(
        similarity(*frames, mask)[0],
        similarity(a, b, mask.repeat_interleave(3, 0))[0].unflatten(0, (2, 3)).mean(1),
    )
    error = (frames[0] - frames[1]).square()
    each = mean_inside((a - b).square(), mask.repeat_interleave(3, 0)).unflatten(0, (2, 3))
    assert torch.allclose(mean_inside(error, mask), each.mean(1))


def test_signals_have_an_error_but_no_similarity():
    a = torch.rand(2, 1, 100)
    assert similarity(a, a) == (None, None)
    assert np.allclose(mean_inside(a, None), a.mean((1, 2)))


def test_unit_clamps():
    assert unit(torch.tensor([-3.0, -1, 0, 1, 3])).tolist() == [0, 0, 0.5, 1, 1]

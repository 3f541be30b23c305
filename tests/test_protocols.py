"""The imagenet protocol: equal to an independent computation, named in every output."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import equivae
from equivae import InputError
from equivae.data.resizing import imagenet_crop
from models import ConvAE, PoolAE, cells, noise


def local_inception(images):
    """A feature network in Inception's place: means of patches, of 8-bit images."""
    return F.avg_pool2d((images * 255).round(), 8).flatten(1)[:, :6]


def distance(a, b):
    return (a - b).square().mean((1, 2, 3))


def evaluate(vae, images, transforms="rot180", **options):
    options = {"sweep_samples": 0, "panels": 0, "progress": False, **options}
    options = {"protocol": "imagenet", "resolution": _side(images), **options}
    return equivae.evaluate(vae, images, transforms, **options)


def _side(images):
    return images.shape[-1] if isinstance(images, torch.Tensor) else None


def as_bytes(x: torch.Tensor) -> np.ndarray:
    return torch.clamp(127.5 * x + 128.0, 0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    covariances = np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + covariances)


@pytest.fixture(scope="module")
def case():
    x = F.avg_pool2d(noise(9, 3, 75, 75), 4, 3) + 0.2  # whose neighbours are alike
    with torch.no_grad():
        z = ConvAE().encode(x)
        y, turned = ConvAE().decode(z), ConvAE().decode(z.rot90(2, (-2, -1))).rot90(2, (-2, -1))
    found = evaluate(ConvAE(), x, features=local_inception, lpips=distance).metrics
    return x, y, turned, found


def test_psnr_is_the_mean_of_every_images_over_bytes(case):
    x, y, turned, found = case
    original, made, back = map(as_bytes, (x, y, turned))
    expected = [
        peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(original, made, strict=True)
    ]
    moved = [
        peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(original, back, strict=True)
    ]
    assert found.imagenet.psnr == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.transforms["rot180"].imagenet.psnr == pytest.approx(np.mean(moved), abs=1e-6)
    gap = np.mean(np.subtract(expected, moved))
    assert found.transforms["rot180"].imagenet.gap_db == pytest.approx(gap, abs=1e-6)
    spread = found.spreads["imagenet/reconstruction_psnr"]
    assert spread.low < spread.value == found.imagenet.psnr < spread.high
    assert found.reconstruction_psnr != found.imagenet.psnr


def test_ssim_is_that_of_values_from_minus_one_to_one(case):
    x, y, _, found = case
    expected = [
        structural_similarity(
            np.pad(a.numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect"),
            np.pad(b.numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect"),
            channel_axis=0,
            data_range=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x, y.clamp(-1, 1), strict=True)
    ]
    assert found.imagenet.ssim == pytest.approx(np.mean(expected), abs=1e-5)
    assert abs(found.imagenet.ssim - found.reconstruction_ssim) > 1e-3


def test_ssim_against_torchmetrics(case):
    image = pytest.importorskip("torchmetrics.image")
    x, y, _, found = case
    expected = image.StructuralSimilarityIndexMeasure(data_range=(-1.0, 1.0))(y, x)
    assert found.imagenet.ssim == pytest.approx(float(expected), abs=1e-5)


def test_lpips_and_rfid_are_those_of_the_networks(case):
    x, y, _, found = case
    a, b = (torch.from_numpy(as_bytes(t)).permute(0, 3, 1, 2) / 255 for t in (y, x))
    expected = frechet(local_inception(a).double().numpy(), local_inception(b).double().numpy())
    assert found.imagenet.rfid == pytest.approx(expected, rel=1e-6)
    units = ((y.clamp(-1, 1) + 1) / 2, (x + 1) / 2)
    assert found.imagenet.lpips == pytest.approx(float(distance(*units).mean()), rel=1e-5)
    assert found.transforms["rot180"].imagenet.rfid > 0
    assert (found.reconstruction_rfid, found.reconstruction_lpips) == (None, None)


def test_rfid_against_torchmetrics(case):
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y, _, found = case

    class Local(torch.nn.Module):
        num_features = 6

        def forward(self, images):
            return local_inception(images.float() / 255)

    metric = fid.FrechetInceptionDistance(Local())
    for images, real in ((x, True), (y, False)):
        metric.update(torch.from_numpy(as_bytes(images)).permute(0, 3, 1, 2), real=real)
    assert found.imagenet.rfid == pytest.approx(float(metric.compute()), rel=1e-3)


def test_rfid_against_a_folder_and_a_statistics_file(tmp_path):
    x = noise(6, 3, 16, 16)
    folder = tmp_path / "reference"
    folder.mkdir()
    others = as_bytes(noise(8, 3, 16, 16, seed=5))
    for i, picture in enumerate(others):
        Image.fromarray(picture).save(folder / f"{i}.png")
    features = local_inception(torch.from_numpy(others).permute(0, 3, 1, 2) / 255).double().numpy()
    file = tmp_path / "statistics.npz"
    np.savez(file, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    options = {"resolution": 16, "features": local_inception, "lpips": distance}
    one, other, none = (
        evaluate(ConvAE(), x, rfid_reference=where, **options).metrics
        for where in (folder, file, None)
    )
    with torch.no_grad():
        made = as_bytes(ConvAE().decode(ConvAE().encode(x)))
    mine = local_inception(torch.from_numpy(made).permute(0, 3, 1, 2) / 255).double().numpy()
    assert one.imagenet.rfid == pytest.approx(frechet(mine, features), rel=1e-6)
    assert other.imagenet.rfid == pytest.approx(one.imagenet.rfid, rel=1e-9)
    assert none.imagenet.rfid != pytest.approx(one.imagenet.rfid)
    assert str(folder) in one.conventions["rFID (imagenet)"]


def test_references_that_make_no_sense(tmp_path):
    x, options = noise(2, 3, 16, 16), {"features": local_inception, "resolution": 16}
    with pytest.raises(InputError, match="pass protocol='imagenet' as well"):
        evaluate(ConvAE(), x, protocol="equivae", rfid_reference=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        evaluate(ConvAE(), x, rfid_reference=tmp_path / "none")
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, mean=np.zeros(3))
    with pytest.raises(InputError, match="holds no statistics"):
        evaluate(ConvAE(), x, rfid_reference=wrong, **options)
    np.savez(wrong, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(InputError, match="features of 6 and of 3 numbers"):
        evaluate(ConvAE(), x, rfid_reference=wrong, **options)


def test_an_image_that_comes_back_as_it_was_has_an_infinite_psnr():
    found = evaluate(PoolAE(), cells(3, 16, 16)).metrics
    assert found.imagenet.psnr == math.inf
    assert found.transforms["rot180"].imagenet.gap_db == 0
    assert found.non_finite == {}
    assert "imagenet/reconstruction_psnr" not in found.spreads


def test_the_crop_is_torchvisions():
    image = noise(1, 3, 21, 34)[0]
    found = imagenet_crop(image, 16)
    # The long side rounded down, 34 * 16 / 21 = 25.9, then the crop from round((25 - 16) / 2) = 4.
    resized = F.interpolate(image[None], (16, 25), mode="bilinear", antialias=True)[0]
    assert torch.equal(found, resized[:, :, 4:20])
    assert imagenet_crop(noise(1, 3, 16, 16)[0], 16).shape == (3, 16, 16)
    images = equivae.data.load_images(image[None], resolution=16, resize="imagenet")
    assert torch.equal(images[0], found)


def test_the_protocol_has_its_own_resolution(tmp_path):
    Image.fromarray(as_bytes(noise(1, 3, 40, 60))[0]).save(tmp_path / "a.png")
    report = evaluate(PoolAE(), tmp_path)
    assert report.settings["resolution"] == 256
    assert "bilinear" in report.metrics.conventions["images"]


def test_what_cannot_be_had_is_said_in_one_sentence(monkeypatch):
    for module in ("torchmetrics.image.fid", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, module, None)
    found = evaluate(ConvAE(), noise(2, 3, 16, 16)).metrics
    assert found.imagenet.ssim < 1
    assert (found.imagenet.rfid, found.imagenet.lpips) == (None, None)
    first, second = found.notes
    assert first.startswith("rFID was not measured")
    assert second.startswith("LPIPS was not measured")
    assert all(
        "pip install 'equivae[metrics]' and run the same again" in note for note in (first, second)
    )
    with pytest.raises(InputError, match=r"pip install 'equivae\[metrics\]'"):
        evaluate(ConvAE(), noise(1, 3, 16, 16), features="inception")


def test_masks_of_any_rank_count():
    found = evaluate(
        ConvAE(), noise(2, 3, 32, 32), ["scale(factor=0.5)", "rotate(angle=30.0)"]
    ).metrics
    for one in found.transforms.values():
        assert math.isfinite(one.imagenet.psnr)
        assert -1 < one.imagenet.ssim < 1

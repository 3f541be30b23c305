"""The numbers, against other libraries and against answers known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

import equivae
from equivae import InputError
from equivae.evaluation import psnr
from models import ConvAE, MarkedAE, PoolAE, cells, noise, tiny_kl
from test_registry import ShiftRight


def evaluate(vae, images, transforms="rot180", **options):
    return equivae.evaluate(vae, images, transforms, progress=False, **options)


class Nearly(PoolAE):
    """Pools, and adds a little of the image's left side: neither perfect nor equivariant."""

    def decode(self, latents):
        images = super().decode(latents)
        return images + 0.1 * torch.linspace(-1, 1, images.shape[-1])


def unit(images):
    return ((images.clamp(-1, 1) + 1) / 2).numpy()


def test_against_scikit_image():
    vae, x = Nearly(), cells(3, 24, 32, scale=0.8) + noise(3, 3, 24, 32, scale=0.1)
    metrics = evaluate(vae, x, ["rot180", "rot90"]).metrics

    def compare(images):
        pairs = list(zip(unit(x), unit(images), strict=True))
        mse = np.mean([mean_squared_error(a, b) for a, b in pairs])
        ssim = np.mean(
            [
                structural_similarity(
                    *(a, b),
                    channel_axis=0,
                    data_range=1,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in pairs
            ]
        )
        # All images in one: the PSNR of the mean error.
        whole = peak_signal_noise_ratio(unit(x), unit(images), data_range=1)
        return mse, whole, ssim

    z = vae.encode(x)
    mse, peak, ssim = compare(vae.decode(z))
    assert metrics.images == 3
    assert metrics.reconstruction_mse == pytest.approx(mse, abs=1e-4, rel=1e-4)
    assert metrics.reconstruction_psnr == pytest.approx(peak, abs=1e-4)
    assert metrics.reconstruction_ssim == pytest.approx(ssim, abs=1e-4)
    for name, turns in (("rot180", 2), ("rot90", 1)):
        back = vae.decode(z.rot90(turns, (-2, -1))).rot90(-turns, (-2, -1))
        mse, round_trip, ssim = compare(back)
        found = metrics.transforms[name]
        assert found.round_trip_mse == pytest.approx(mse, abs=1e-4, rel=1e-4)
        assert found.round_trip_psnr == pytest.approx(round_trip, abs=1e-4)
        assert found.round_trip_ssim == pytest.approx(ssim, abs=1e-4)
        assert found.equivariance_gap_db == pytest.approx(peak - round_trip, abs=1e-4)


def test_psnr():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1.0) == 0
    assert psnr(0.0) == math.inf


def test_errors_are_taken_after_clamping():
    class Bright(PoolAE):
        def decode(self, latents):
            return super().decode(latents) * 0 + 5

    metrics = evaluate(Bright(), torch.zeros(1, 3, 8, 8)).metrics
    assert metrics.reconstruction_mse == pytest.approx(0.25)


def test_an_equivariant_vae_has_no_gap():
    metrics = evaluate(PoolAE(), noise(3, 3, 12, 16), "d4").metrics
    assert len(metrics.transforms) == 7
    assert metrics.reconstruction_psnr < 30
    for found in metrics.transforms.values():
        assert found.equivariance_gap_db == pytest.approx(0, abs=1e-5)
        assert found.encoder_relative_error == pytest.approx(0, abs=1e-6)
        assert found.round_trip_ssim == pytest.approx(metrics.reconstruction_ssim, abs=1e-5)


def test_a_perfect_vae_has_no_gap_either():
    metrics = evaluate(PoolAE(), cells(2, 8, 8)).metrics
    assert metrics.reconstruction_psnr == math.inf
    assert metrics.transforms["rot180"].round_trip_psnr == math.inf
    assert metrics.transforms["rot180"].equivariance_gap_db == 0
    assert metrics.reconstruction_ssim == pytest.approx(1)


def test_a_blank_image_has_no_encoder_error():
    metrics = evaluate(PoolAE(), torch.zeros(1, 3, 8, 8)).metrics
    assert metrics.transforms["rot180"].encoder_relative_error == 0


def test_a_known_defect_has_the_gap_computed_by_hand():
    up, down = 0.2, 0.1
    x = cells(2, 8, 12)
    metrics = evaluate(MarkedAE(up, down), x, ["rot180", "vflip", "hflip"]).metrics
    reconstruction, round_trip = (up - down) ** 2 / 4, (up + down) ** 2 / 4
    assert metrics.reconstruction_mse == pytest.approx(reconstruction, rel=1e-4)
    for name in ("rot180", "vflip"):
        found = metrics.transforms[name]
        assert found.round_trip_mse == pytest.approx(round_trip, rel=1e-4)
        assert found.equivariance_gap_db == pytest.approx(20 * math.log10(3), abs=1e-3)
        turned = MarkedAE(up, down).encode(equivae.get_transform(name).pixel(x))
        expected = 2 * up * math.sqrt(turned[0].numel()) / turned.flatten(1).norm(dim=1)
        assert found.encoder_relative_error == pytest.approx(float(expected.mean()), rel=1e-4)
    assert metrics.transforms["hflip"].equivariance_gap_db == pytest.approx(0, abs=1e-4)
    assert metrics.transforms["hflip"].encoder_relative_error == pytest.approx(0, abs=1e-6)


def test_without_an_inverse_the_decode_is_compared_with_the_moved_image():
    equivae.register_transform("dim", pixel=lambda x: x / 2, latent=lambda z: z / 2 + 0.1)
    report = evaluate(PoolAE(), cells(2, 8, 8), "dim")
    found = report.metrics.transforms["dim"]
    assert found.round_trip_mse == pytest.approx(0.1**2 / 4, rel=1e-4)
    assert report.panels[0].back is None


def test_only_what_lies_inside_the_mask_counts():
    class Cells(ShiftRight):
        """One cell in the latent, two pixels in the image."""

        name = "cells"

        def __init__(self, step: int = 1) -> None:
            self.step = step

        def pixel(self, x):
            return x.roll(2 * self.step, -1)

        def latent(self, z):
            # What comes in at the border is wrong by far.
            moved = z.roll(self.step, -1).clone()
            moved[..., 0 if self.step > 0 else -1] = 9
            return moved

        @property
        def inverse(self):
            return Cells(-self.step)

        def mask(self, x):
            inside = torch.ones(x.shape[-2:], dtype=torch.bool)
            inside[:, slice(0, 2) if self.step > 0 else slice(-2, None)] = False
            return inside

    spoilt = evaluate(PoolAE(), cells(2, 8, 12), Cells()).metrics.transforms["cells"]
    assert spoilt.round_trip_mse < 1e-12
    assert spoilt.round_trip_ssim == pytest.approx(1)
    rough = noise(2, 3, 8, 12)
    found = evaluate(PoolAE(), rough, Cells()).metrics.transforms["cells"]
    # The last two columns fell off on the way there.
    error = (PoolAE().decode(PoolAE().encode(rough)) - rough)[..., :-2] / 2
    assert found.round_trip_mse == pytest.approx(float(error.square().mean()), rel=1e-4)
    assert found.equivariance_gap_db == pytest.approx(0, abs=1e-4)


def test_quarter_turns_of_non_square_images():
    report = evaluate(ConvAE(), noise(2, 3, 8, 12), ["rot90", "transpose"])
    assert {t: m.round_trip_mse > 0 for t, m in report.metrics.transforms.items()} == {
        "rot90": True,
        "transpose": True,
    }
    panel = report.panels[0]
    assert panel.original.shape == panel.back.shape == (3, 8, 12)
    assert panel.moved.shape == (3, 12, 8)


def test_the_model_is_left_as_it_was():
    vae = tiny_kl().train()
    vae.decoder.eval()
    weights = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    modes = [part.training for part in vae.modules()]
    evaluate(vae, noise(1, 3, 8, 8))
    assert [part.training for part in vae.modules()] == modes
    assert all(tensor.equal(weights[name]) for name, tensor in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_the_mode_is_restored_after_an_error():
    vae = ConvAE().train()
    with pytest.raises(InputError):
        evaluate(vae, noise(1, 3, 7, 8))
    assert vae.training


def test_batches_do_not_matter():
    x = noise(5, 3, 12, 12)
    one, many = (evaluate(ConvAE(), x, "d2", eval_batch_size=size).metrics for size in (1, 5))
    assert one.reconstruction_mse == pytest.approx(many.reconstruction_mse, rel=1e-5)
    for key, values in one.per_image.items():
        assert values == pytest.approx(many.per_image[key], rel=1e-4)
        assert len(values) == 5


def test_means_are_those_of_the_images():
    metrics = evaluate(ConvAE(), noise(3, 3, 8, 8)).metrics
    assert metrics.reconstruction_mse == pytest.approx(
        np.mean(metrics.per_image["reconstruction_mse"])
    )
    found = metrics.transforms["rot180"]
    assert found.round_trip_mse == pytest.approx(
        np.mean(metrics.per_image["round_trip_mse/rot180"])
    )


def test_max_samples_are_drawn_with_the_seed():
    x = noise(8, 3, 8, 8)
    every = evaluate(ConvAE(), x).metrics.per_image["reconstruction_mse"]

    def draw(seed):
        return evaluate(ConvAE(), x, max_samples=3, seed=seed).metrics.per_image[
            "reconstruction_mse"
        ]

    assert draw(0) == draw(0)
    assert {round(value, 6) for value in draw(0)} < {round(value, 6) for value in every}
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1
    with pytest.raises(InputError, match="max_samples must be at least 1"):
        evaluate(ConvAE(), x, max_samples=0)


def test_panels_are_of_the_first_images():
    x = noise(3, 3, 8, 8)
    report = evaluate(ConvAE(), x, ["rot180", "hflip"], panels=2, eval_batch_size=1)
    assert [(p.image, p.transform) for p in report.panels] == [
        (image, transform) for image in ("#0", "#1") for transform in ("rot180", "hflip")
    ]
    assert np.allclose(report.panels[0].original.numpy(), unit(x[0]))
    assert evaluate(ConvAE(), x, panels=0).panels == []


def test_a_baseline_is_measured_beside():
    x = noise(2, 3, 8, 8)
    report = evaluate(PoolAE(), x, baseline=ConvAE())
    assert report.before == evaluate(ConvAE(), x).metrics
    assert report.metrics == evaluate(PoolAE(), x).metrics
    assert "went from" in report.verdict


def test_loads_the_vae_and_the_images(tmp_path):
    vae = tiny_kl()
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "images").mkdir()
    array = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_bytes(b"broken")
    report = evaluate(tmp_path / "vae", tmp_path / "images", resolution=8)
    assert report.metrics == evaluate(vae, tmp_path / "images", resolution=8).metrics
    assert [name for name, _ in report.skipped] == ["b.png"]


def test_bfloat16():
    found = evaluate(tiny_kl().bfloat16(), noise(1, 3, 16, 16)).metrics
    single = evaluate(tiny_kl(), noise(1, 3, 16, 16)).metrics
    assert found.reconstruction_psnr == pytest.approx(single.reconstruction_psnr, abs=0.2)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (noise(1, 3, 8, 8), {"transforms": "rot18"}, "unknown transform"),
        (noise(1, 3, 8, 7), {}, "do not divide by the VAE's factor 2"),
        (noise(1, 1, 8, 8), {}, r"has shape \(1, 8, 8\)|have 1 channels"),
        (noise(1, 3, 8, 8), {"resolution": 5}, "resolution 5 does not divide.*use 4"),
        (noise(1, 3, 8, 8), {"resolution": 0}, "resolution 0"),
        ([noise(3, 8, 8), noise(3, 8, 10)], {}, "resolution"),
        (noise(2, 3, 8, 8), {"eval_batch_size": 0}, "eval_batch_size must be at least 1"),
    ],
)
def test_input_that_cannot_be_used(images, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(ConvAE(), images, **options)


def test_ops_that_disagree_about_the_shape():
    equivae.register_transform("lame", pixel=lambda x: x.mT, latent=lambda z: z)
    with pytest.raises(InputError, match="its two ops disagree about the shape"):
        evaluate(PoolAE(), noise(1, 3, 8, 12), "lame")

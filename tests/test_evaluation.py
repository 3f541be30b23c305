"""The numbers, against other libraries and against answers known by hand."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

import equivae
from equivae import InputError
from equivae.data import load_images
from equivae.evaluation import psnr
from equivae.evaluation.sweeps import asked_for, default_sweep_samples
from equivae.operators.modules import ConvOperator
from equivae.operators.transform import FittedTransform
from models import ConvAE, MarkedAE, PoolAE, cells, noise, tiny_kl
from test_registry import ShiftRight


def evaluate(vae, images, transforms="rot180", **options):
    options = {"sweep_samples": 0, "progress": False, **options}
    return equivae.evaluate(vae, images, transforms, **options)


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
    assert metrics.reconstruction_mse == pytest.approx(mse, abs=1e-5, rel=1e-5)
    assert metrics.reconstruction_psnr == pytest.approx(peak, abs=1e-5)
    assert metrics.reconstruction_ssim == pytest.approx(ssim, abs=1e-5)
    for name, turns in (("rot180", 2), ("rot90", 1)):
        back = vae.decode(z.rot90(turns, (-2, -1))).rot90(-turns, (-2, -1))
        mse, round_trip, ssim = compare(back)
        found = metrics.transforms[name]
        assert found.round_trip_mse == pytest.approx(mse, abs=1e-5, rel=1e-5)
        assert found.round_trip_psnr == pytest.approx(round_trip, abs=1e-5)
        assert found.round_trip_ssim == pytest.approx(ssim, abs=1e-5)
        assert found.equivariance_gap_db == pytest.approx(peak - round_trip, abs=1e-5)


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


def ranked(images):
    """Three images of which the middle one is the worst for `Dim`, the last the best."""
    return torch.stack([torch.full((3, 8, 8), value) for value in images])


class Dim(PoolAE):
    """Loses a tenth of the brightness; loses all of it when the latent has been turned negative."""

    def decode(self, latents):
        return super().decode(latents) * 0.9


def test_panels_go_from_the_best_image_to_the_worst():
    x = ranked([0.5, -0.9, 0.1, 0.2, 0.7])
    report = evaluate(Dim(), x, ["rot180", "hflip"], panels=3, eval_batch_size=2)
    assert [(p.image, p.rank, p.transform) for p in report.panels] == [
        (image, rank, transform)
        for image, rank in (("#2", "best"), ("#0", "median"), ("#1", "worst"))
        for transform in ("rot180", "hflip")
    ]
    assert np.allclose(report.panels[0].original.numpy(), unit(x[2]))
    assert np.allclose(report.panels[0].reconstruction.numpy(), unit(x[2] * 0.9))
    assert evaluate(Dim(), x, panels=0).panels == []
    assert [p.image for p in evaluate(Dim(), x, panels=1).panels] == ["#0"]
    assert [p.image for p in evaluate(Dim(), x, panels=9).panels] == ["#2", "#3", "#0", "#4", "#1"]


def test_panels_of_a_baseline_are_of_the_same_images():
    x = ranked([0.5, -0.9, 0.1])
    report = evaluate(Dim(), x, baseline=PoolAE())
    assert [p.image for p in report.panels_before] == [p.image for p in report.panels]
    assert np.allclose(report.panels_before[0].reconstruction.numpy(), unit(x[2]))


def test_spreads_name_the_worst_image():
    x = ranked([0.5, -0.9, 0.1])
    spreads = evaluate(Dim(), x).metrics.spreads
    errors = [(0.1 * v) ** 2 / 4 for v in (0.5, 0.9, 0.1)]
    for key in ("reconstruction_psnr", "round_trip_psnr/rot180"):
        spread = spreads[key]
        assert spread.worst_image == "#1"
        assert spread.worst == pytest.approx(psnr(errors[1]), abs=1e-3)
        assert spread.median == pytest.approx(psnr(errors[0]), abs=1e-3)
        assert spread.value == pytest.approx(psnr(sum(errors) / 3), abs=1e-3)
        assert spread.low < spread.value < spread.high  # wider than three images are
    gap = spreads["equivariance_gap_db/rot180"]
    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_the_ceiling_is_the_decode_of_the_encoded_moved_image():
    up, down = 0.2, 0.1
    found = evaluate(MarkedAE(up, down), cells(2, 8, 12), ["rot180", "rot90"]).metrics.transforms
    # What is encoded upright is reconstructed as ever, whichever way the picture in it is turned.
    for one in found.values():
        assert one.ceiling_mse == pytest.approx((up - down) ** 2 / 4, rel=1e-4)
        assert one.ceiling_psnr == pytest.approx(psnr((up - down) ** 2 / 4), abs=1e-3)


class SignAE(PoolAE):
    """Its first latent channel has the other sign in the right half, as an odd feature would: decodes
    perfectly, but a horizontal flip has to turn that channel's sign."""

    def sign(self, latents):
        width = latents.shape[-1]
        sign = torch.ones_like(latents)
        sign[:, 0] = torch.where(torch.arange(width) < width // 2, 1.0, -1.0)
        return sign

    def encode(self, images):
        latents = super().encode(images)
        return latents * self.sign(latents)

    def decode(self, latents):
        return super().decode(latents * self.sign(latents))


def test_a_known_channel_flip_has_the_gap_of_theory():
    x = cells(3, 8, 12) * 0.5
    plain = equivae.get_transform("hflip")
    signed = plain.with_representation(equivae.transforms.SignFlips((0,)), "signed")
    found = evaluate(SignAE(), x, [plain, signed, "vflip"]).metrics.transforms
    # The first channel decodes to its negative: an error of 2 x, x² in [0, 1] units, of a third of all.
    assert found["hflip"].round_trip_mse == pytest.approx(
        float(x[:, 0].square().mean()) / 3, rel=1e-4
    )
    assert found["signed"].round_trip_mse == found["vflip"].round_trip_mse == 0
    assert found["signed"].equivariance_gap_db == found["vflip"].equivariance_gap_db == 0
    z = PoolAE().encode(x)
    cosine = 1 - 2 * z[:, 0].square().sum((1, 2)) / z.square().sum((1, 2, 3))
    assert found["hflip"].encoder_cosine == pytest.approx(float(cosine.mean()), abs=1e-5)
    assert found["signed"].encoder_cosine == pytest.approx(1)


def test_groups_are_means_over_their_elements():
    metrics = evaluate(ConvAE(), noise(3, 3, 8, 8), ["d4", "shift(y=1,x=0)"]).metrics
    assert set(metrics.groups) == {"c4", "d2", "d4"}
    group = metrics.groups["c4"]
    assert group.elements == ["rot90", "rot180", "rot270"]
    members = [metrics.transforms[name] for name in group.elements]
    mse = np.mean([m.round_trip_mse for m in members])
    assert group.round_trip_mse == pytest.approx(mse)
    assert group.equivariance_gap_db == pytest.approx(metrics.reconstruction_psnr - psnr(mse))
    assert group.worst_gap_db == max(m.equivariance_gap_db for m in members)
    assert metrics.transforms[group.worst_element].equivariance_gap_db == group.worst_gap_db
    assert evaluate(ConvAE(), noise(1, 3, 8, 8), "c2").metrics.groups == {}


def test_random_transforms_are_drawn_for_every_image():
    x = noise(1, 3, 16, 16).expand(6, -1, -1, -1)
    one, many = (
        evaluate(ConvAE(), x, "random_rotate", eval_batch_size=size).metrics for size in (1, 6)
    )
    (key,) = [key for key in one.per_image if key.startswith("round_trip_mse/")]
    assert one.per_image[key] == pytest.approx(many.per_image[key], rel=1e-4)
    # The same image six times: what differs is the angle.
    assert len({round(value, 7) for value in one.per_image[key]}) == 6
    other = evaluate(ConvAE(), x, "random_rotate", seed=1).metrics
    assert other.per_image[key] != pytest.approx(one.per_image[key], rel=1e-4)


def test_sweeps_have_the_answers_known_by_hand():
    options = {"sweep_samples": 2, "eval_batch_size": 1}
    up, down = 0.2, 0.1
    sweeps = evaluate(MarkedAE(up, down), cells(3, 16, 16), **options).metrics.sweeps
    angles = sweeps["rotate"]
    assert (angles.parameter, angles.images) == ("angle", 2)
    assert (angles.values[0], angles.values[-1]) == (0, 180)
    for angle, gap in ((0, 0.0), (180, 20 * math.log10(3))):
        place = angles.values.index(angle)
        found = angles.reconstruction_psnr[place] - angles.round_trip_psnr[place]
        assert found == pytest.approx(gap, abs=1e-3)
    scales = sweeps["scale"]
    place = scales.values.index(1.0)
    assert scales.round_trip_psnr[place] == pytest.approx(scales.reconstruction_psnr[place])
    assert scales.round_trip_psnr[place] == pytest.approx(psnr((up - down) ** 2 / 4), abs=1e-3)


def test_re_encoding_is_what_can_be_had_without_a_latent_op():
    up, down = 0.2, 0.1
    vae, x = MarkedAE(up, down), cells(3, 8, 12)
    report = evaluate(vae, x, ["rot180", "rot90", "hflip"], reencode=True, eval_batch_size=2)
    found = report.metrics.transforms
    # The decode carries up - down, turned around with the picture; the second pass adds as much.
    for name, error in (("rot180", 0.0), ("hflip", 2 * (up - down))):
        assert found[name].reencoded_mse == pytest.approx(error**2 / 4, abs=1e-9, rel=1e-4)
        picture = vae.decode(vae.encode(x)).clamp(-1, 1)
        transform = equivae.get_transform(name)
        again = vae.decode(vae.encode(transform.pixel(picture)))
        expected = np.mean((unit(again) - unit(transform.pixel(x))) ** 2)
        assert found[name].reencoded_mse == pytest.approx(expected, abs=1e-9, rel=1e-4)
    for one in found.values():
        assert 0 < one.latent_op_seconds < one.reencoded_seconds < 1
        assert one.reencoded_psnr == pytest.approx(psnr(one.reencoded_mse))
    labels = {label for label, _, _ in report.rows()}
    assert {"hflip: re-encoded PSNR", "hflip: re-encoding, per image"} <= labels
    html = report.to_html()
    assert f"{found['hflip'].reencoded_psnr:.2f}" in html
    assert "re-encoding</th>" in html
    plain = evaluate(vae, x, "hflip")
    assert plain.metrics.transforms["hflip"].reencoded_psnr is None
    assert "re-encoding</th>" not in plain.to_html()


def test_re_encoding_a_transform_that_interpolates_counts_inside_its_mask():
    x = noise(2, 3, 16, 16)
    found = evaluate(PoolAE(), x, equivae.get_transform("rotate", angle=30), reencode=True)
    (one,) = found.metrics.transforms.values()
    assert 0 < one.reencoded_mse < 1
    compared = equivae.compare(
        [PoolAE(), ConvAE()], x, "rot180", reencode=True, sweep_samples=0, progress=False
    )
    assert "re-encoded PSNR" in compared.to_markdown()
    assert all(m.transforms["rot180"].reencoded_seconds for m in compared.metrics.values())


def test_sweeps_are_few_for_few_images():
    assert [default_sweep_samples(n) for n in (1, 5, 6, 12, 24, 1000)] == [0, 0, 1, 2, 4, 4]
    x = noise(6, 3, 16, 16)
    metrics = equivae.evaluate(PoolAE(), x, progress=False).metrics
    assert metrics.sweeps["rotate"].images == 1
    assert equivae.evaluate(PoolAE(), x[:5], progress=False).metrics.sweeps == {}
    with pytest.raises(InputError, match="sweep_samples must not be negative, got -1"):
        evaluate(PoolAE(), x, sweep_samples=-1)


def test_only_what_was_asked_for_is_swept():
    def swept(*names, **options):
        options = {"panels": 0, "progress": False, **options}
        return set(equivae.evaluate(PoolAE(), noise(6, 3, 16, 16), names, **options).metrics.sweeps)

    assert swept("hflip", "vflip") == set()
    assert swept("hflip", sweep_samples=1) == {"rotate", "scale"}

    def names(*transforms):
        return [one.transform for one in asked_for(equivae.resolve_transforms(transforms))]

    assert names("rot180") == names("c4") == names("rotate(angle=30)") == ["rotate"]
    assert names("zoom(factor=2)") == names("scale(factor=0.5)") == ["scale"]
    assert (
        names("eqvae") == names("choice(of='hflip,rot90,scale(factor=0.5)')") == ["rotate", "scale"]
    )
    op = FittedTransform(equivae.get_transform("rot180"), ConvOperator(4), name="mine")
    assert [one.transform for one in asked_for([op])] == ["rotate"]


def test_a_comparison_reads_its_folder_once(tmp_path, monkeypatch):
    for i in range(3):
        array = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    loads = []
    monkeypatch.setattr(
        import_module("equivae.reporting.evaluate"),
        "load_images",
        lambda *args, **kwargs: loads.append(args) or load_images(*args, **kwargs),
    )
    equivae.compare(
        [PoolAE(), PoolAE(), PoolAE()], tmp_path, sweep_samples=0, panels=0, progress=False
    )
    assert len(loads) == 1


def test_sweeps_are_as_many_as_asked_for():
    x = noise(3, 3, 16, 16)
    assert evaluate(PoolAE(), x, sweep_samples=0).metrics.sweeps == {}
    assert evaluate(PoolAE(), x, sweep_samples=9).metrics.sweeps["scale"].images == 3


def test_latents_drift_from_the_baseline():
    class Louder(PoolAE):
        def encode(self, images):
            return 1.25 * super().encode(images)

    x = noise(5, 3, 8, 8)
    report = evaluate(Louder(), x, baseline=PoolAE(), eval_batch_size=2)
    assert report.metrics.latents.drift == pytest.approx(0.25)
    assert report.metrics.latents.drift_images == 5
    assert report.before.latents.drift is None
    assert evaluate(PoolAE(), x, baseline=PoolAE()).metrics.latents.drift == 0
    # Latents of another shape are not comparable.
    assert evaluate(ConvAE(), x, baseline=PoolAE()).metrics.latents.drift is None


def test_a_baseline_is_measured_beside():
    x = noise(2, 3, 8, 8)
    report = evaluate(PoolAE(), x, baseline=ConvAE())
    assert report.before == evaluate(ConvAE(), x).metrics
    alone = evaluate(PoolAE(), x).metrics
    assert report.metrics.transforms == alone.transforms
    assert report.metrics.per_image == alone.per_image
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
        (noise(1, 3, 8, 8), {"resolution": 0}, "resolution must be at least 1, got 0"),
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

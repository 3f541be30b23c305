"""Crops and pastes: the plain latent op, and the one that is fitted for the cells beside the seam."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivae
from equivae.errors import InputError
from equivae.operators import beside_plain, load_latent_op
from equivae.operators.problems import Problem
from equivae.operators.runtime import load
from equivae.operators.seams import SeamOperator, Window
from models import noise


def fit(vae: nn.Module, transform: str, images: Tensor, **options: object):
    return equivae.fit_latent_op(vae, transform, images, progress=False, **options)


class Overlapping(nn.Module):
    """An encoder that looks half a cell beyond each, and a decoder that is its adjoint."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = torch.hann_window(8, periodic=False)
        weight = torch.randn(4, 3, 8, 8, generator=generator) * shape * shape[:, None]
        self.weight = nn.Parameter(weight / weight.flatten(1).norm(dim=1)[:, None, None, None])

    def encode(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, stride=4, padding=2)

    def decode(self, latents: Tensor) -> Tensor:
        return F.conv_transpose2d(latents, self.weight, stride=4, padding=2)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(28, 3, n, n, generator=generator) * 2 - 1 for n in (8, 32))
    images = (F.interpolate(coarse, 64, mode="bicubic") + F.interpolate(fine, 64) / 2).clamp(-1, 1)
    return Overlapping(), images[:24], images[24:]


@pytest.fixture(scope="module")
def pasted(trained) -> equivae.FittedTransform:
    vae, images, _ = trained
    return fit(vae, "paste", images, kernel_size=3)


def test_a_paste_takes_the_window_from_the_sample_before() -> None:
    t = equivae.get_transform("paste", size=(0.5, 0.25), y=0.0, x=1.0, cell=8)
    x = torch.stack([torch.full((3, 64, 64), float(i)) for i in range(3)])
    found = t.pixel(x)
    for i in range(3):
        inside = found[i, :, :32, 48:]
        assert (inside == (i - 1) % 3).all()
        assert found[i].sum() == 3 * (64 * 64 * i + 32 * 16 * ((i - 1) % 3 - i))
    z = torch.stack([torch.full((4, 8, 8), float(i)) for i in range(3)])
    assert t.latent(z).equal(F.avg_pool2d(found, 8)[:, :1].expand(3, 4, 8, 8))
    video = x[:, :, None].expand(3, 3, 2, 64, 64)
    assert t.pixel(video)[:, :, 1].equal(found)
    assert equivae.get_transform(t.name).at_factor(8) == t
    with pytest.warns(RuntimeWarning, match="give at least two"):
        t.pixel(x[:1])
    with pytest.raises(InputError, match="share of the side"):
        equivae.get_transform("paste", size=2.0)


@pytest.mark.parametrize("pastes", [False, True])
def test_unfitted_it_is_the_plain_op(pastes: bool) -> None:
    name = "paste" if pastes else "crop"
    operator = SeamOperator(4, 3, Window((0.5, 0.75), (0.0, 0.5), pastes))
    z = noise(3, 4, 8, 12)
    plain = equivae.get_transform(name, size=(0.5, 0.75), y=0.0, x=0.5)
    assert operator(z).equal(plain.latent(z))


@pytest.mark.parametrize("name", ["crop", "paste"])
def test_only_cells_beside_the_seam_change(name: str) -> None:
    operator = SeamOperator(2, 3, Window((0.5, 0.5), (0.5, 0.5), name == "paste"))
    operator.bias.fill_(1.0)
    z = noise(2, 2, 8, 8)
    changed = operator(z) - equivae.get_transform(name).latent(z)
    expected = torch.zeros(8, 8)
    if name == "crop":
        expected = torch.ones(4, 4)
        expected[1:3, 1:3] = 0
    else:
        expected[1:7, 1:7] = 1
        expected[3:5, 3:5] = 0
    assert torch.allclose(changed, expected.expand_as(changed), atol=1e-6)


def error(found: Tensor, target: Tensor) -> float:
    return float((found - target).square().mean())


@pytest.mark.parametrize("name", ["crop", "paste"])
def test_a_fit_comes_nearer_than_the_plain_op(name: str, trained) -> None:
    vae, images, test = trained
    op = fit(vae, name, images, kernel_size=3)
    assert isinstance(op.operator, SeamOperator)
    with torch.no_grad():
        z, target = vae.encode(test), vae.encode(op.pixel(test))
        fitted, plain = op.latent(z), op.base.latent(z)
    assert error(fitted, target) < 0.8 * error(plain, target)
    assert op.report.latent_error < 0.9 * op.report.grid_error


def test_it_is_saved_loaded_and_applied_alone(trained, pasted, tmp_path) -> None:
    op = pasted
    op.save(tmp_path)
    z = trained[0].encode(trained[2]).detach()
    assert load_latent_op(tmp_path).latent(z).equal(op.latent(z))
    assert load(tmp_path)(z).equal(op.latent(z))


def test_any_mask_is_pasted_through(trained, pasted) -> None:
    op = pasted
    z = trained[0].encode(trained[2]).detach()
    mask = op.operator.window.mask(*z.shape[-2:])
    assert torch.allclose(op.operator.paste(z, z.roll(1, 0), mask), op.latent(z), atol=1e-6)
    soft = torch.linspace(0, 1, z.shape[-1]).expand(z.shape[-2:])
    assert op.operator.paste(z, z, soft).shape == z.shape
    for wrong in (mask[:3], mask[None]):
        with pytest.raises(InputError, match="of one shape"):
            op.operator.paste(z, z, wrong)
    crop = SeamOperator(4, 3, Window((0.5, 0.5), (0.5, 0.5), False))
    with pytest.raises(InputError, match="fitted for a crop"):
        crop.paste(z, z, mask)


def test_a_round_disc_is_pasted_better_too(trained, pasted) -> None:
    """Fitted on a square window, used through another mask."""
    vae, _, test = trained
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    mask = ((y - 7.5) ** 2 + (x - 7.5) ** 2 < 25).float()
    pixels = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    other = test.roll(1, 0)
    with torch.no_grad():
        target = vae.encode(pixels * other + (1 - pixels) * test)
        z, w = vae.encode(test), vae.encode(other)
        plain, fitted = mask * w + (1 - mask) * z, pasted.operator.paste(z, w, mask)
    assert error(fitted, target) < 0.85 * error(plain, target)


def test_no_sample_is_alone_while_fitting(trained) -> None:
    vae, images, _ = trained
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        op = fit(vae, "paste", images[:7], eval_batch_size=2, validation_split=0.4)
        assert isinstance(op.operator, SeamOperator)
        assert not isinstance(fit(vae, "crop", images[:4], kernel_size=1).operator, SeamOperator)
    with pytest.raises(InputError, match="mixes samples, and 7 images to fit on and 1 held out"):
        fit(vae, "paste", images[:8])


# Beside the plain latent op ---------------------------------------------------------------------------


def judge(monkeypatch: pytest.MonkeyPatch, fitted: float, plain: float) -> None:
    found = iter([fitted, plain])
    monkeypatch.setattr(beside_plain, "operator_psnr", lambda *_: next(found))
    monkeypatch.setattr(beside_plain, "decoded_psnr", lambda *_: next(found))


def test_a_fit_that_loses_in_both_errors_is_replaced_by_the_plain_op(trained, monkeypatch) -> None:
    judge(monkeypatch, 20.0, 24.1)
    monkeypatch.setattr(Problem, "grid_error", 0.01)
    vae, images, _ = trained
    with pytest.warns(UserWarning, match="so the plain one is returned; fit on more images"):
        op = fit(vae, "hflip", images[:6], kernel_size=3)
    z = vae.encode(images)
    assert op.report.is_plain
    assert op.latent(z).equal(z.flip(-1))
    assert op.inverse is op
    assert op.report.latent_error == op.report.grid_error
    assert "The fit lost to the plain latent op" in op.report.to_markdown()


def test_a_fit_that_decodes_worse_says_so(trained, monkeypatch) -> None:
    judge(monkeypatch, 20.0, 24.1)
    vae, images, _ = trained
    with pytest.warns(UserWarning, match="decodes at 20.00 dB on held-out .* one at 24.10 dB"):
        op = fit(vae, "paste", images, kernel_size=3)
    assert not op.report.is_plain
    assert isinstance(op.operator, SeamOperator)
    assert (op.report.decoded_psnr, op.report.plain_decoded_psnr) == (20.0, 24.1)
    assert "decode at 20.00 dB, by the plain latent op at 24.10 dB" in op.report.to_markdown()


class Shuffled(nn.Module):
    """The pixels of a patch as channels: a flip is exactly a 1x1 operator."""

    def encode(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, 2)


def test_a_clear_fit_is_not_decoded_for_it(monkeypatch) -> None:
    monkeypatch.setattr(beside_plain, "operator_psnr", None)
    op = fit(Shuffled(), "hflip", noise(4, 3, 16, 16), kernel_size=1)
    assert op.report.plain_decoded_psnr is None

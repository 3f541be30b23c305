"""Latent operators and symmetrized autoencoders beyond images: video and audio."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import equivae
from equivae.operators import load_latent_op


class BlockAE(nn.Module):
    """Mixes the values of every block of 2 along each axis by an invertible matrix, so it loses nothing."""

    axes: str

    def __init__(self, values: int, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        size = values * channels
        self.matrix = nn.Parameter(
            torch.randn(size, size, generator=generator) / 4 + torch.eye(size)
        )
        self.channels = channels

    def encode(self, x: Tensor) -> Tensor:
        blocks = rearrange(x, f"b c {self.cells} -> b ({self.inner} c) {self.grid}", **self.twos)
        return torch.einsum("oc,bc...->bo...", self.matrix, blocks)

    def decode(self, z: Tensor) -> Tensor:
        blocks = torch.einsum("oc,bc...->bo...", torch.linalg.inv(self.matrix), z)
        pattern = f"b ({self.inner} c) {self.grid} -> b c {self.cells}"
        return rearrange(blocks, pattern, c=self.channels, **self.twos)


class Video(BlockAE):
    cells, inner, grid = "(t p) (h q) (w r)", "p q r", "t h w"
    twos: ClassVar = {"p": 2, "q": 2, "r": 2}

    def __init__(self) -> None:
        super().__init__(8, 3)
        self.kind = nn.Conv3d(1, 1, 1)  # what says that it takes videos


class Audio(BlockAE):
    cells, inner, grid = "(t p)", "p", "t"
    twos: ClassVar = {"p": 2}

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.kind = nn.Conv1d(2, 2, 1)


def clips(count: int = 8, seed: int = 0) -> Tensor:
    return noise(count, 3, 4, 8, 8, seed=seed)


def waves(count: int = 8, seed: int = 0) -> Tensor:
    return noise(count, 2, 64, seed=seed)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


CASES = [
    (Video, clips, "hflip", (1, 1, 1)),
    (Video, clips, "rot90", (1, 1, 1)),
    (Video, clips, "time_reverse", (1, 1, 1)),
    (Video, clips, "hflip", (1, 3, 3)),
    (Video, clips, "time_reverse", (3, 1, 1)),
    (Audio, waves, "time_reverse", (1,)),
    (Audio, waves, "time_reverse", (3,)),
]


@pytest.mark.parametrize(("kind", "data", "transform", "kernel"), CASES)
def test_the_exact_operator_is_found_on_unseen_data(kind, data, transform, kernel, tmp_path):
    vae = kind()
    fitted = equivae.fit_latent_op(vae, transform, data(40), max(kernel), progress=False)
    assert fitted.operator.kernel == kernel  # as large as asked along the axes that move
    unseen = data(2, seed=1)
    view = equivae.Autoencoder(vae)
    with torch.no_grad():
        plain = equivae.get_transform(transform)
        expected = view.encode(plain.pixel(unseen))
        found, grid = (t.latent(view.encode(unseen)) for t in (fitted, plain))
        assert (found - expected).norm() / expected.norm() < 1e-2
        assert (grid - expected).norm() / expected.norm() > 0.3
        fitted.save(tmp_path)
        again = load_latent_op(tmp_path)
        assert again.latent(view.encode(unseen)).equal(found)


def test_an_operator_for_video_refuses_the_latent_of_an_image():
    fitted = equivae.fit_latent_op(Video(), "hflip", clips(), 1, progress=False)
    with pytest.raises(equivae.InputError, match="video"):
        fitted.latent(torch.zeros(1, 24, 4, 4))


def test_a_network_on_video():
    vae = Video()
    fitted = equivae.fit_latent_op(
        vae, "hflip", clips(), 1, method="network", max_train_steps=3, width=8, progress=False
    )
    assert fitted.operator.reach == (3, 3, 3)
    assert fitted.latent(torch.zeros(1, 24, 2, 4, 4)).shape == (1, 24, 2, 4, 4)


def test_a_shift_takes_the_cells_of_the_vae():
    fitted = equivae.fit_latent_op(Audio(), "time_shift", waves(), 1, progress=False)
    assert not fitted.report.is_plain  # both decode alike, so there is nothing to warn of
    report = equivae.evaluate(Audio(), waves(2, seed=1), fitted, progress=False)
    assert report.metrics.transforms[fitted.name].round_trip_psnr > 140  # float32 rounding


@pytest.mark.parametrize("group", ["c2", "hflip", "d4"])
@pytest.mark.parametrize("with_images", [False, True])
def test_a_symmetrized_video_autoencoder_is_exact(group, with_images):
    vae = Video().double()
    images = clips().double() if with_images else None
    made = equivae.symmetrize(vae, group, images=images, kernel_size=1, progress=False)
    view, x = equivae.Autoencoder(made), clips(2, seed=1).double()
    with torch.no_grad():
        z = view.encode(x)
        decoded = view.decode(z)
        for element in made.group:
            assert (view.encode(element.pixel(x)) - element.latent(z)).abs().max() < 1e-10
            moved = view.decode(element.latent(z))
            assert (moved - element.pixel(decoded)).abs().max() < 1e-10
        if (
            with_images and group != "d4"
        ):  # where no cell is an average, an exact context loses nothing
            assert (decoded - x).abs().max() < 1e-2


def test_audio_has_no_grid_to_symmetrize():
    with pytest.raises(equivae.InputError, match="audio"):
        equivae.symmetrize(Audio(), "c2")


@pytest.mark.parametrize("name", ["gain(factor=0.25)", "polarity", "mix(gain=0.5)"])
def test_the_plain_op_suits_a_linear_codec_and_the_fitted_one_any_odd_one(name):
    class Crooked(Audio):
        """Its latent is linear, but for an offset, which a gain does not keep."""

        def encode(self, x: Tensor) -> Tensor:
            return super().encode(x) + 0.5

        def decode(self, z: Tensor) -> Tensor:
            return super().decode(z - 0.5)

    waves, t = noise(8, 2, 64, seed=0), equivae.get_transform(name)
    linear, crooked = Audio(), Crooked()
    goal = linear.encode(t.pixel(waves))
    torch.testing.assert_close(t.latent(linear.encode(waves)), goal, atol=1e-5, rtol=1e-4)
    fitted = equivae.fit_latent_op(crooked, t, waves, 1, validation_split=0.25, progress=False)
    goal = crooked.encode(t.pixel(waves))
    assert (t.latent(crooked.encode(waves)) - goal).abs().max() > 0.2
    found = fitted.latent(crooked.encode(waves))
    torch.testing.assert_close(found, goal, atol=1e-3, rtol=1e-3)

"""Beyond images: the same names on video, and the time axis of video and audio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equivae
from equivae.transforms import transform_table

get = equivae.get_transform
SPATIAL = [row.name for row in transform_table() if row.group in ("lattice", "resampled")]


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_names_act_on_every_frame(name):
    t = get(name).at_factor(8)
    side = max(4, t.block)
    video, latent = torch.randn(2, 3, 4, 8 * side, 8 * side), torch.randn(2, 4, 2, side, side)
    moved, moved_latent = t.pixel(video), t.latent(latent)
    for frame in range(4):
        assert torch.allclose(moved[:, :, frame], t.pixel(video[:, :, frame]), atol=1e-6)
    for frame in range(2):
        assert torch.allclose(moved_latent[:, :, frame], t.latent(latent[:, :, frame]), atol=1e-6)


@given(st.integers(-5, 5), st.integers(1, 4), st.sampled_from([(), (4, 6)]))
def test_time_shift_moves_whole_latent_steps(steps, factor, space):
    frames = torch.randn(2, 3, 6 * factor, *space)
    latent = torch.randn(2, 4, 6, *space)
    t = get("time_shift", steps=steps).at_factor(8, factor)
    assert torch.equal(t.pixel(frames), frames.roll(steps * factor, 2))
    assert torch.equal(t.latent(latent), latent.roll(steps, 2))
    assert torch.equal(t.inverse.pixel(t.pixel(frames)), frames)


@pytest.mark.parametrize("shape", [(2, 1, 12), (2, 3, 6, 4, 5)])
def test_time_reverse(shape):
    x = torch.randn(shape)
    t = get("time_reverse")
    assert torch.equal(t.pixel(x), x.flip(2))
    assert torch.equal(t.latent(x), x.flip(2))
    assert t.inverse == t


def test_polarity_is_a_sign_in_both_spaces():
    wave, latent = torch.randn(2, 1, 64), torch.randn(2, 8, 8)
    t = get("polarity")
    assert torch.equal(t.pixel(wave), -wave)
    assert torch.equal(t.inverse.latent(t.latent(latent)), latent)


def test_gains_compose_and_are_undone():
    wave, latent = torch.randn(2, 1, 64).double(), torch.randn(2, 8, 8).double()
    twice = get("gain", factor=0.5) @ get("gain", factor=0.6)
    torch.testing.assert_close(twice.pixel(wave), get("gain", factor=0.3).pixel(wave))
    t = get("gain", factor=0.25)
    torch.testing.assert_close(t.inverse.latent(t.latent(latent)), latent)
    both = get("gain(factor=0.5)") @ get("polarity")
    torch.testing.assert_close(both.pixel(wave), -0.5 * wave)
    for factor in (0, -1, float("nan"), "loud"):
        with pytest.raises(equivae.InputError, match="factor"):
            get("gain", factor=factor)


def test_mixing_adds_the_one_before():
    wave = torch.randn(3, 1, 64)
    mixed = get("mix", gain=0.5).pixel(wave)
    torch.testing.assert_close(mixed, wave + 0.5 * wave[[2, 0, 1]])
    assert get("mix").mixes_samples


@pytest.mark.parametrize("name", ["time_reverse", "time_shift"])
def test_images_have_no_time(name):
    with pytest.raises(equivae.InputError, match="time axis"):
        get(name).pixel(torch.zeros(1, 3, 8, 8))


def test_time_and_space_compose():
    video = torch.randn(1, 3, 4, 8, 8)
    t = get("time_reverse") @ get("hflip")
    assert torch.equal(t.pixel(video), video.flip((2, -1)))
    assert t.layouts == ("video",)


def test_sign_flips_act_on_the_channels_of_video():
    latent = torch.randn(1, 4, 2, 3, 3)
    assert torch.equal(
        get("signed_hflip", channels=(0,)).latent(latent)[:, 0], -latent.flip(-1)[:, 0]
    )

"""Dead leaves: repeatable, in range, and with edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import equivae
from equivae.data import DeadLeaves, dead_leaves


@given(st.integers(0, 5), st.integers(0, 10**9), st.integers(1, 24))
@settings(max_examples=12)
def test_an_image_depends_on_seed_index_and_size_alone(index, seed, size):
    image = DeadLeaves(6, size, seed)[index]
    assert image.equal(DeadLeaves(1000, size, seed)[index])
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert -1 <= image.min() <= image.max() <= 1


def test_images_and_seeds_differ():
    images = dead_leaves(4, 16, seed=0)
    assert len({float(image.sum()) for image in images}) == 4
    assert not dead_leaves(1, 16, seed=1)[0].equal(images[0])


def test_the_tensor_is_the_dataset():
    images, dataset = dead_leaves(3, 16, seed=5), DeadLeaves(3, 16, seed=5)
    assert images.shape == (3, 3, 16, 16)
    assert all(image.equal(dataset[i]) for i, image in enumerate(images))
    assert dataset[-1].equal(dataset[2])
    assert len(dataset) == 3


def test_the_global_generators_play_no_part():
    torch.manual_seed(0)
    first = dead_leaves(1, 16)
    torch.manual_seed(1)
    assert dead_leaves(1, 16).equal(first)


def test_their_gradients_have_heavy_tails_as_those_of_photographs():
    images = dead_leaves(6, 64)
    assert (images.std((1, 2, 3)) > 0.05).all()
    for axis in (-1, -2):
        steps = images.diff(dim=axis).flatten(1)
        kurtosis = (steps - steps.mean(1, True)).pow(4).mean(1) / steps.var(1).square()
        assert (kurtosis > 3).all()  # 3 is a Gaussian's, as of an image of noise


@pytest.mark.parametrize("options", [{"length": 0}, {"length": 3, "size": 0}])
def test_nothing_to_draw(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        DeadLeaves(**options)


@pytest.mark.parametrize("index", [3, -4])
def test_outside_of_the_set(index):
    with pytest.raises(IndexError):
        DeadLeaves(3, 8)[index]


def test_it_is_an_image_source():
    images = equivae.data.load_images(DeadLeaves(2, 16), resolution=8)
    assert images[1].shape == (3, 8, 8)

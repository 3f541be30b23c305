"""The diffusion model of `benchmarks/downstream.py`: what is compared is comparable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import downstream
import equivae


def test_two_steps_on_two_vaes(tmp_path: Path) -> None:
    images = equivae.data.dead_leaves(12, size=80, seed=2)
    vae = equivae.zoo.load()
    models = {"untouched": vae, "symmetrized": equivae.symmetrize(vae, "c2", progress=False)}
    budget = downstream.Budget(2, batch_size=4, points=2, samples=10, inference_steps=2)
    ((results, pictures),) = downstream.compare(models, images[:8], images[8:], budget, 1, 2)
    one, other = (results["vaes"][name] for name in models)
    assert one["round_trip_psnr"] < one["reconstruction_psnr"]
    assert other["round_trip_psnr"] == pytest.approx(other["reconstruction_psnr"], abs=1e-3)
    for row in (one, other):
        assert list(row["runs"][0]["validation_loss"]) == [1, 2]
        assert row["runs"][0]["distance"][2] > row["floor"]  # two steps teach it nothing
    downstream.draw(results, pictures, tmp_path / "shown.png")
    assert (tmp_path / "shown.png").stat().st_size > 10_000


def test_equal_latents_give_equal_numbers_and_training_lowers_the_loss() -> None:
    latents = torch.randn(16, 4, 1, 1).expand(-1, -1, 16, 16).contiguous()
    budget = downstream.Budget(12, batch_size=8, points=3, samples=2, inference_steps=2)
    losses, samples = downstream.train(latents, latents[:8], budget, seed=0)
    again, sampled_again = downstream.train(latents, latents[:8], budget, seed=0)
    assert losses == again
    assert samples[12].equal(sampled_again[12])
    other, _ = downstream.train(latents, latents[:8], budget, seed=1)
    assert other != losses
    assert losses[12] < losses[3]


def test_the_distance_of_random_features() -> None:
    images = equivae.data.dead_leaves(64, size=64, seed=1)
    features = downstream.random_features(images)
    assert features(images).shape == (64, 48)
    assert downstream.distance(features, images, images) == pytest.approx(0, abs=1e-4)
    near = downstream.distance(features, images, images + 0.01)
    assert near < downstream.distance(features, images, images + 0.1)

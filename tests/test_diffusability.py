"""`benchmarks/diffusability.py`: its arms differ as they say, and its verdict follows its rule."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import diffusability
import equivae


def test_scrambling_changes_equivariance_and_nothing_else() -> None:
    images, kinds = diffusability.shapes(32, seed=3)
    assert images.shape == (32, 3, 32, 32)
    assert set(kinds.tolist()) == {0, 1, 2}
    vae = equivae.zoo.load()
    plain = diffusability.space(vae, images, images)
    scrambled = diffusability.space(diffusability.Scrambled(vae, 8).eval(), images, images)
    torch.testing.assert_close(scrambled.decoded, plain.decoded, atol=1e-4, rtol=0)
    assert scrambled.numbers["rot180_psnr"] < plain.numbers["rot180_psnr"] - 5
    measure = diffusability.features(images)
    assert measure(images).shape == (32, 96)
    assert diffusability.distance(measure, images, images) == pytest.approx(0, abs=1e-3)


def test_runs_are_equal_for_equal_latents_and_are_not_repeated(tmp_path: Path) -> None:
    budget = diffusability.Budget(2, batch_size=4, samples=16, inference_steps=2)
    vae = equivae.zoo.load()
    models = {"one": vae, "other": vae}
    found = list(diffusability.compare(models, budget, [0], {}, 16, pictures=tmp_path))[-1]
    one, other = (found["vaes"][name]["runs"][0] for name in models)
    assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert not list(diffusability.compare(models, budget, [0], found, 16))


@pytest.mark.parametrize(
    ("scrambled", "finetuned", "verdict"),
    [
        (2.0, 0.8, "easier"),
        (2.0, 1.3, "harder"),
        (2.0, 0.97, "no difference larger than noise"),
        (0.9, 0.8, "the setting does not answer"),
    ],
)
def test_the_verdict_follows_the_rule(scrambled: float, finetuned: float, verdict: str) -> None:
    level = {"untouched": 1.0, "reconstruction": 1.0, "symmetrized": 1.0}
    level |= {"scrambled": scrambled, "fine-tuned": finetuned}
    wobble = (0.98, 1.0, 1.02, 1.01, 0.99, 1.0)
    results = {
        "vaes": {
            name: {
                "runs": [
                    {"seed": s, "distance": value * (w if name == "untouched" else 1)}
                    for s, w in enumerate(wobble)
                ]
            }
            for name, value in level.items()
        }
    }
    judged = diffusability.judge(results)
    assert judged["verdict"] == verdict
    pair = judged["pairs"]["fine-tuned against reconstruction"]
    assert pair["ratio"] == pytest.approx(finetuned)
    assert pair["low"] == pytest.approx(pair["high"])  # no spread between the seeds
    noisy = judged["pairs"]["fine-tuned against untouched"]
    logs = torch.tensor([math.log(finetuned / w) for w in wobble])
    half = 2.5706 * float(logs.std()) / 6**0.5  # Student's t with 5 degrees of freedom
    assert math.log(noisy["high"] / noisy["ratio"]) == pytest.approx(half, rel=1e-3)

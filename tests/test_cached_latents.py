"""The worked example: what it measures is what it says, and its loop trains on flipped latents."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

import equivae
from doc_blocks import ROOT, load_script
from models import tiny_kl

cached_latents = load_script(ROOT / "examples" / "cached_latents.py")


def test_the_three_ways() -> None:
    images = equivae.data.dead_leaves(12, size=32, seed=2)
    test = equivae.data.dead_leaves(4, size=32, seed=5)
    vae = equivae.zoo.load()
    rows = {r["way"]: r for r in cached_latents.run(vae, images, test, "hflip", steps=2)}
    errors = {way: row["latent_error"] for way, row in rows.items()}
    assert errors["symmetrized"] < 1e-5 < errors["fitted"] < errors["plain"]
    assert rows["fitted"]["decoded_psnr"] > rows["plain"]["decoded_psnr"] + 1
    assert rows["symmetrized"]["decoded_psnr"] == pytest.approx(
        rows["symmetrized"]["reencoded_psnr"], abs=1e-3
    )
    with torch.no_grad():
        z, moved = (equivae.Autoencoder(vae).encode(x) for x in (test, test.flip(-1)))
    by_hand = ((z.flip(-1) - moved).flatten(1).norm(dim=1) / moved.flatten(1).norm(dim=1)).mean()
    assert errors["plain"] == pytest.approx(float(by_hand), rel=1e-4)


def test_about_half_of_every_batch_is_flipped() -> None:
    vae = tiny_kl()
    latents = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    way = cached_latents.Way(vae, equivae.get_transform("hflip"))
    flipped = 0
    for batch in islice(cached_latents.augmented(latents, way, 4), 50):
        for z in batch:
            as_is = any(z.equal(original) for original in latents)
            turned = any(z.allclose(o.flip(-1), atol=1e-5) for o in latents)
            assert as_is != turned
            flipped += turned
    assert 70 < flipped < 130  # of 200

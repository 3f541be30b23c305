"""Aspect-ratio buckets: which sides, which picture goes where, batches of one shape, runs that resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from equivae import EquivarianceLoss, InputError, Report
from equivae.data import load_images
from equivae.data.buckets import Buckets, make_buckets
from equivae.training.bucketed import BucketedImages
from equivae.training.crops import random_crops, random_flips
from models import noise, tiny_kl
from test_finetune import changed, finetune, weights
from test_resume import without_time

SIZES = [(30, 20), (20, 30), (24, 24), (40, 20), (20, 41), (32, 21), (25, 25), (30, 21), (21, 30)]
BUCKETED = {"resolution": 16, "enable_bucket": True, "bucket_reso_steps": 4}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    for i, size in enumerate(SIZES):
        Image.fromarray(pixels(i, *size)).save(found / f"{i}.png")
    return found


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def kohya(resolution: int, low: int, high: int, step: int) -> set[tuple[int, int]]:
    """sd-scripts' `make_bucket_resolutions`, as its documentation has it: `(width, height)`."""
    found = {(int(resolution // step) * step,) * 2}
    for width in range(low, high + 1, step):
        height = min(high, resolution**2 // width // step * step)
        if height >= low:
            found |= {(width, height), (height, width)}
    return found


@pytest.mark.parametrize(
    ("resolution", "low", "high"), [(512, 256, 1024), (768, 256, 1024), (1024, 256, 2048)]
)
def test_the_buckets_are_kohyas(resolution: int, low: int, high: int) -> None:
    mine = make_buckets(resolution, least=low, most=high).sides
    assert {(width, height) for height, width in mine} == kohya(resolution, low, high, 64)


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_a_picture_gets_the_nearest_ratio(height: int, width: int) -> None:
    buckets = make_buckets(512)
    chosen = buckets.of(height, width)
    nearest = min(abs(w / h - width / height) for h, w in buckets.sides)
    assert abs(chosen[1] / chosen[0] - width / height) == nearest


@pytest.mark.parametrize("kind", ["folder", "table", "list", "tensors"])
def test_images_of_a_bucket_have_its_size(folder: Path, kind: str) -> None:
    source: Any = folder
    if kind == "table":
        features = datasets.Features({"image": datasets.Image()})
        files = [str(folder / f"{i}.png") for i in range(len(SIZES))]
        source = datasets.Dataset.from_dict({"image": files}, features=features)
    elif kind == "list":
        source = [Image.fromarray(pixels(i, *size)) for i, size in enumerate(SIZES)]
    elif kind == "tensors":
        source = [noise(3, *size) for size in SIZES]
    images = load_images(source, resolution=16)
    found = BucketedImages(images, make_buckets(16, steps=4))
    assert sorted(i for some in found.members.values() for i in some) == list(range(len(SIZES)))
    for side, members in found.members.items():
        for index, image in zip(members, found.__getitems__(members), strict=True):
            assert image.shape == (3, *side)
            assert (side[0] > side[1]) == (SIZES[index][0] > SIZES[index][1])
    assert images[0].shape == (3, 16, 16)  # the set itself stays as it was


def test_a_turned_photograph_goes_where_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0, 20, 30)).save(tmp_path / "a.png", exif=exif)
    found = BucketedImages(load_images(tmp_path, resolution=16), make_buckets(16, steps=4))
    ((side, _),) = found.members.items()
    assert side[0] > side[1]
    assert found.__getitems__([0])[0].shape == (3, *side)


def test_the_crop_is_the_centre(tmp_path: Path) -> None:
    x = noise(3, 20, 30)
    image = load_images([x]).prepared_at(Buckets(((20, 20),)))[0]
    assert image.equal(x[:, :, 5:25])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_pass_has_every_image_in_batches_of_one_bucket(folder: Path, processes: int) -> None:
    found = BucketedImages(load_images(folder, resolution=16), make_buckets(16, steps=4))
    of = {i: side for side, members in found.members.items() for i in members}
    lists = found.lists(2, processes, torch.Generator().manual_seed(0))
    assert all(len({of[i] for i in some}) == 1 for some in lists)
    assert all(len(some) % processes == 0 and len(some) <= 2 * processes for some in lists)
    assert {i for some in lists for i in some} == set(of)
    if processes == 1:
        assert sum(map(len, lists)) == len(of)
    assert lists != found.lists(2, processes, torch.Generator().manual_seed(1))


def test_a_broken_picture_is_replaced_by_one_of_its_batch(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "mine")
    found = BucketedImages(load_images(tmp_path / "mine", resolution=16), make_buckets(16, steps=4))
    members = next(some for some in found.members.values() if len(some) > 1)
    (tmp_path / "mine" / f"{members[0]}.png").write_bytes(b"no")
    first, second = found.__getitems__(members[:2])
    assert first.equal(second)
    assert [name for name, _ in found.images.replaced] == [f"{members[0]}.png"]


@pytest.mark.parametrize(
    ("transforms", "options"),
    [
        (["rot90", "hflip"], {"random_flip": True, "dataloader_num_workers": 1}),
        ("transpose", {"gradient_accumulation_steps": 2, "train": "decoder", "schedule": "dual"}),
    ],
)
def test_a_run_over_buckets_resumes_bit_for_bit(
    tmp_path: Path, folder: Path, transforms: Any, options: Any
) -> None:
    options = {**BUCKETED, "images": folder, "transforms": transforms, **options}
    options |= {"max_train_steps": None, "num_train_epochs": 1, "logging_steps": 2}
    options |= {"checkpointing_steps": 2, "checkpoints_total_limit": None, "bottleneck_steps": 2}
    whole = finetune(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    cut = finetune(tmp_path / "cut", **options, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(cut.vae)) == set()
    assert without_time(cut.history) == without_time(whole.history)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": None}, "enable_bucket needs a resolution"),
        ({"crop_size": 8}, "enable_bucket keeps their shapes"),
        (
            {"bucket_reso_steps": 5},
            "bucket_reso_steps=5 does not divide by the VAE's factor 2; use 4",
        ),
        ({"bucket_reso_steps": 64}, "lower bucket_reso_steps"),
        ({"min_bucket_reso": 20}, "have to lie around the resolution of 16"),
        ({"transforms": "random_rot90"}, "samples of different sizes"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, folder: Path, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        finetune(tmp_path / "out", images=folder, **{**BUCKETED, **options})
    assert not (tmp_path / "out").exists()


def test_the_sampled_schedule_turns_images_that_are_no_squares() -> None:
    """Each part is decoded at its own shape; the loss is the mean over the parts, by hand."""
    vae, images = tiny_kl(), noise(6, 3, 8, 12)
    loss = EquivarianceLoss("rot90", schedule="sampled")
    with torch.no_grad():
        found = loss(vae, images, generator=torch.Generator().manual_seed(0))
        latents = vae.encode(images).latent_dist.mode()
        turned = vae.decode(latents.rot90(1, (-2, -1))).sample
        errors = (turned - images.rot90(1, (-2, -1))).square().mean((1, 2, 3))
        parts = loss.decode(vae, images, generator=torch.Generator().manual_seed(0)).parts
    (rows,) = [one.part.rows for one in parts if one.part.name == "equivariance/rot90"]
    assert 0 < len(rows) < 6
    assert float(found.terms["equivariance/rot90"]) == pytest.approx(float(errors[rows].mean()))


def test_crops_and_flips_are_drawn_for_each_image() -> None:
    places = torch.arange(64.0).view(1, 1, 8, 8).expand(32, 1, 8, 8)
    crops = random_crops(places, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (32, 1, 4, 4)
    corners = {int(crop[0, 0, 0]) for crop in crops}
    assert len(corners) > 5
    assert all(
        crop.equal(places[0, :, int(c) // 8 :, int(c) % 8 :][:, :4, :4])
        for crop, c in zip(crops, crops[:, 0, 0, 0], strict=True)
    )
    flipped = random_flips(places, torch.Generator().manual_seed(0))
    mirrored = [bool(image.equal(places[0].flip(-1))) for image in flipped]
    assert 8 < sum(mirrored) < 24
    assert all(image.equal(places[0]) or one for image, one in zip(flipped, mirrored, strict=True))

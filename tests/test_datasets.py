"""Rows of `datasets` in every form that people have them in."""

from __future__ import annotations

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import equivae
from equivae import InputError
from equivae.data import load_images


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def expected(seed: int) -> torch.Tensor:
    return torch.from_numpy(pixels(seed)).permute(2, 0, 1).float() / 127.5 - 1


def table(**columns: list[int]) -> datasets.Dataset:
    """Columns of pictures by their seeds."""
    features = datasets.Features(dict.fromkeys(columns, datasets.Image()))
    rows = {name: [Image.fromarray(pixels(s)) for s in seeds] for name, seeds in columns.items()}
    return datasets.Dataset.from_dict(rows, features=features)


def same(images: equivae.data.ImageDataset, *seeds: int) -> bool:
    assert len(images) == len(seeds)
    return all(torch.allclose(images[i], expected(s), atol=1e-6) for i, s in enumerate(seeds))


# Which column -------------------------------------------------------------------------------------


def test_the_image_comes_before_its_conditioning():
    rows = table(conditioning_image=[5, 6], image=[0, 1], mask=[7, 8])
    assert same(load_images(rows), 0, 1)
    assert same(load_images(rows, image_column="conditioning_image"), 5, 6)


def test_several_columns_of_images_without_a_usual_name_are_not_guessed_among():
    with pytest.raises(InputError, match=r"several columns of images, \['left', 'right'\]; name"):
        load_images(table(left=[0], right=[1]))


def test_the_column_of_dictionaries():
    rows = [{"photo": Image.fromarray(pixels(0)), "image": Image.fromarray(pixels(1))}]
    assert same(load_images(rows), 1)
    assert same(load_images(rows, image_column="photo"), 0)
    with pytest.raises(InputError, match=r"under one of \['foto'\]"):
        load_images(rows, image_column="foto")[0]


# Forms --------------------------------------------------------------------------------------------


def test_splits_of_a_dictionary():
    both = datasets.DatasetDict(train=table(image=[0, 1]), test=table(image=[2]))
    assert same(load_images(both), 0, 1)
    assert same(load_images(both, split="test"), 2)
    assert same(load_images(both, split="all"), 0, 1, 2)
    with pytest.raises(InputError, match=r"no split 'val'; it has 'train', 'test'"):
        load_images(both, split="val")


def _to_tensors(batch):
    return {"pixel_values": [expected_of(image) for image in batch["image"]]}


def expected_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def test_with_transform():
    rows = table(image=[0, 1]).with_transform(_to_tensors)
    assert same(load_images(rows), 0, 1)
    assert same(load_images(rows, image_column="pixel_values"), 0, 1)
    with pytest.raises(InputError, match=r"no 'image'; they have \['pixel_values'\]"):
        load_images(rows, image_column="image")


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_formats(kind):
    assert same(load_images(table(image=[0, 1]).with_format(kind)), 0, 1)
    for feature in (datasets.Array3D((8, 8, 3), "uint8"), None):
        features = feature and datasets.Features({"image": feature})
        arrays = datasets.Dataset.from_dict({"image": [pixels(0), pixels(1)]}, features=features)
        assert same(load_images(arrays.with_format(kind)), 0, 1)
    floats = datasets.Dataset.from_dict({"image": [expected(0).numpy(), expected(1).numpy()]})
    assert same(load_images(floats.with_format(kind)), 0, 1)


def test_encoded_bytes_in_plain_columns():
    stream = io.BytesIO()
    Image.fromarray(pixels(3)).save(stream, "png")
    row = {"bytes": stream.getvalue(), "path": "3.png"}
    assert same(load_images(datasets.Dataset.from_dict({"image": [row]})), 3)
    assert same(load_images(datasets.Dataset.from_dict({"image": [row["bytes"]]})), 3)


def test_saved_to_disk(tmp_path):
    table(image=[0, 1]).save_to_disk(tmp_path / "one")
    assert same(load_images(tmp_path / "one"), 0, 1)
    assert same(load_images(str(tmp_path / "one"), max_samples=1), 0)
    both = datasets.DatasetDict(train=table(image=[0]), test=table(image=[2]))
    both.save_to_disk(tmp_path / "two")
    assert same(load_images(tmp_path / "two"), 0)
    assert same(load_images(tmp_path / "two", split="test"), 2)
    assert same(load_images(next((tmp_path / "one").glob("*.arrow"))), 0, 1)
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="one cannot be read as a data set"):
        load_images(tmp_path / "one")


def test_local_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "rows" / "data"
    folder.mkdir(parents=True)
    table(image=[0, 1]).to_parquet(folder / "train-00000-of-00002.parquet")
    table(image=[2]).to_parquet(folder / "train-00001-of-00002.parquet")
    table(image=[3]).to_parquet(folder / "test-00000-of-00001.parquet")
    assert same(load_images(tmp_path / "rows"), 0, 1, 2)
    assert same(load_images(tmp_path / "rows", split="test"), 3)
    assert same(load_images(folder / "test-00000-of-00001.parquet"), 3)
    (folder / "test-00000-of-00001.parquet").write_bytes(b"no")
    with pytest.raises(
        InputError, match=r"test-00000-of-00001\.parquet cannot be read as a data set"
    ):
        load_images(folder / "test-00000-of-00001.parquet")


def test_streams_need_to_know_how_many_are_wanted():
    rows = table(image=[0, 1]).to_iterable_dataset()
    with pytest.raises(InputError, match="say with max_samples how many"):
        load_images(rows)
    assert same(load_images(rows, max_samples=2), 0, 1)


# Rows are checked by what reads them --------------------------------------------------------------


def _broken_rows() -> datasets.Dataset:
    stream = io.BytesIO()
    Image.fromarray(pixels(0)).save(stream, "png")
    whole = stream.getvalue()
    exif = io.BytesIO()
    Image.fromarray(pixels(0)).save(exif, "png", exif=b"Exif\0\0nonsense")
    rows = [whole, whole[: len(whole) // 2], b"no picture", None, exif.getvalue()]
    features = datasets.Features({"image": datasets.Image()})
    encoded = [row if row is None else {"bytes": row, "path": None} for row in rows]
    return datasets.Dataset.from_dict({"image": encoded}, features=features)


def test_rows_that_cannot_be_read_are_skipped_and_named():
    images = load_images(_broken_rows())
    assert images.names == ["#0", "#4"]
    assert same(images, 0, 0)
    reasons = dict(images.skipped)
    assert set(reasons) == {"#1", "#2", "#3"}
    assert "missing" in reasons["#3"]
    with pytest.raises(InputError, match="none of the 2 images can be read; the first is #0"):
        load_images(_broken_rows().select([1, 2]))


# Options reach the calls --------------------------------------------------------------------------


def test_the_options_reach_every_call_that_takes_images():
    rows = datasets.DatasetDict(test=table(image=[0] * 6, photo=[1] * 6))
    vae, options = equivae.zoo.load(), {"split": "test", "image_column": "photo"}
    photo = equivae.evaluate(vae, expected(1)[None], sweep_samples=0, panels=0, progress=False)
    quiet = {"progress": False, **options}
    found = equivae.evaluate(vae, rows, sweep_samples=0, panels=0, **quiet)
    assert found.metrics.reconstruction_mse == pytest.approx(photo.metrics.reconstruction_mse)
    for call in (
        lambda **o: equivae.compare([vae, vae], rows, sweep_samples=0, panels=0, **o),
        lambda **o: equivae.fit_latent_op(vae, "rot180", rows, 1, **o),
        lambda **o: equivae.fit_latent_group(vae, "c2", rows, 1, **o),
        lambda **o: equivae.latent_statistics(vae, rows, **o),
        lambda **o: equivae.analyze_latents(vae, rows, "rot180", **o),
        lambda **o: equivae.symmetrize(vae, "c2", images=rows, kernel_size=1, **o),
    ):
        with pytest.raises(InputError, match="no split 'train'"):
            call(progress=False)
        with pytest.raises(InputError, match="no column 'foto'"):
            call(progress=False, split="test", image_column="foto")
        with pytest.raises(InputError, match="background='none'"):
            call(progress=False, split="test", background="none")


def test_images_of_a_transform_that_draws_are_measured_as_the_same_ones():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.rand(3, 8, 8) * 2 - 1

    vae = equivae.zoo.load()
    found = [
        equivae.evaluate(vae, Noisy(), sweep_samples=0, panels=0, progress=False) for _ in range(2)
    ]
    assert found[0].metrics.reconstruction_mse == found[1].metrics.reconstruction_mse

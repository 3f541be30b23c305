"""Images from every kind of source, resized and cropped, with what is wrong with them named."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from equivae import InputError
from equivae.data import ImageDataset, load_images
from equivae.data.sources import resize_and_crop
from models import noise


def picture(height: int = 8, width: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels)[: 2 + (channels > 1)]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


class Wrapped(Dataset):
    """Items as `wrap` makes them of tensors."""

    def __init__(self, tensors, wrap=lambda t: t):
        self.tensors, self.wrap = tensors, wrap

    def __len__(self):
        return len(self.tensors)

    def __getitem__(self, index):
        return self.wrap(self.tensors[index])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    Image.fromarray(picture(seed=0)).save(tmp_path / "a.png")
    Image.fromarray(picture(seed=1)).save(tmp_path / "sub" / "b.PNG")
    Image.fromarray(picture(seed=2)).save(tmp_path / "sub" / "deep" / "c.bmp")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


# Kinds of source ----------------------------------------------------------------------------------


def test_tensor():
    x = noise(3, 3, 8, 8)
    images = load_images(x)
    assert isinstance(images, ImageDataset)
    assert images.names == ["#0", "#1", "#2"]
    assert torch.stack([images[i] for i in range(3)]).equal(x)
    assert images[-1].equal(x[2])
    with pytest.raises(IndexError):
        images[3]


def test_half_precision_becomes_single():
    assert load_images(noise(1, 3, 8, 8).half())[0].dtype == torch.float32


@pytest.mark.parametrize("kind", [str, Path])
def test_folder_with_subfolders(folder, kind):
    images = load_images(kind(folder))
    assert images.names == ["a.png", "sub/b.PNG", "sub/deep/c.bmp"]
    assert images.skipped == []
    for i in range(3):
        assert images[i].dtype == torch.float32
        torch.testing.assert_close(images[i], as_tensor(picture(seed=i)))


def test_hugging_face_dataset():
    pictures = [Image.fromarray(picture(seed=i)) for i in range(2)]
    features = datasets.Features({"label": datasets.Value("int64"), "photo": datasets.Image()})
    table = datasets.Dataset.from_dict({"label": [0, 1], "photo": pictures}, features=features)
    for source, options in ((table, {}), (table, {"image_column": "photo"})):
        images = load_images(source, **options)
        assert len(images) == 2
        torch.testing.assert_close(images[1], as_tensor(picture(seed=1)))
    with pytest.raises(InputError, match=r"no column 'foto'; it has \['label', 'photo'\]"):
        load_images(table, image_column="foto")
    with pytest.raises(InputError, match="none of them of images; name it with image_column"):
        load_images(table.remove_columns("photo"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: (t, 7),
        lambda t: [t],
        lambda t: {"image": t, "label": 7},
        lambda t: {"pixel_values": t},
        lambda t: Image.fromarray(((t + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()),
        lambda t: ((t + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(),
    ],
    ids=["tensor", "tuple", "list", "image", "pixel_values", "PIL", "bytes"],
)
@pytest.mark.parametrize("container", ["dataset", "loader", "subset", "list"])
def test_items_of_every_kind(wrap, container):
    expected = torch.stack([as_tensor(picture(seed=i)) for i in range(3)])
    dataset = Wrapped(expected, wrap)
    source = {
        "dataset": dataset,
        "loader": DataLoader(dataset, 2, shuffle=True),
        "subset": Subset(dataset, range(3)),
        "list": [dataset[i] for i in range(3)],
    }[container]
    images = load_images(source)
    torch.testing.assert_close(torch.stack([images[i] for i in range(3)]), expected)


def test_an_image_dataset_is_a_source():
    again = load_images(load_images(noise(2, 3, 8, 8)), resolution=4)
    assert again.names == ["#0", "#1"]
    assert again[0].shape == (3, 4, 4)


def test_max_samples_takes_the_first():
    x = noise(4, 3, 8, 8)
    images = load_images(x, max_samples=2)
    assert len(images) == 2
    assert images[1].equal(x[1])
    assert len(load_images(x, max_samples=9)) == 4
    assert len(load_images(DataLoader(Wrapped(x)), max_samples=1)) == 1
    with pytest.raises(InputError, match="max_samples must be at least 1"):
        load_images(x, max_samples=0)


# Pictures as files have them ----------------------------------------------------------------------


def test_grey_and_colour(tmp_path):
    grey = picture(channels=1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    colour = load_images(tmp_path)[0]
    assert colour.shape == (3, 8, 8)
    torch.testing.assert_close(colour, torch.from_numpy(grey).float().expand(3, 8, 8) / 127.5 - 1)
    assert load_images(tmp_path, channels=1)[0].equal(colour[:1])


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    shades = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "grey16.png")
    expected = torch.from_numpy(shades.astype(np.float32)) / 32767.5 - 1
    image = load_images(tmp_path, channels=1)[0]
    torch.testing.assert_close(image[0], expected, atol=2 / 255, rtol=0)


def test_transparency_and_palettes(tmp_path):
    rgb = picture()
    alpha = np.full((8, 8, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(tmp_path / "a.png")
    Image.fromarray(rgb).quantize(64, method=Image.Quantize.MEDIANCUT).save(tmp_path / "b.png")
    images = load_images(tmp_path)
    torch.testing.assert_close(images[0], as_tensor(rgb))
    assert images[1].shape == (3, 8, 8)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(8, 12)).save(tmp_path / "a.png", exif=exif)
    expected = as_tensor(picture(8, 12)).rot90(turns, (-2, -1))
    torch.testing.assert_close(load_images(tmp_path)[0], expected)


def test_unreadable_and_cut_off_files_are_skipped_and_named(folder):
    (folder / "fake.jpg").write_bytes(b"no jpeg")
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(picture(64, 64)).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    images = load_images(folder)
    assert images.names == ["a.png", "sub/b.PNG", "sub/deep/c.bmp"]
    reasons = dict(images.skipped)
    assert set(reasons) == {"fake.jpg", "empty.png", "cut.jpg"}
    assert "not an image" in reasons["fake.jpg"]
    assert "truncated" in reasons["cut.jpg"]
    assert images.subset([0]).skipped == images.skipped


# Sizes --------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_the_size_is_the_resolution(height, width, resolution):
    tensor = noise(3, height, width)
    assert resize_and_crop(tensor, resolution).shape == (3, resolution, resolution)
    array = Image.fromarray(picture(height, width))
    for source in (tensor, array):
        image = load_images([source], resolution=resolution)[0]
        assert image.shape == (3, resolution, resolution)
        assert image.isfinite().all()
        assert image.abs().max() <= 1


@given(st.integers(1, 12), st.integers(0, 12), st.booleans())
def test_the_centre_is_cropped(side, extra, upright):
    shape = (side + extra, side) if upright else (side, side + extra)
    x = noise(3, *shape)
    start = extra // 2
    rows = slice(start, start + side)
    expected = x[:, rows] if upright else x[:, :, rows]
    assert resize_and_crop(x, side).equal(expected)


def test_resizing_keeps_a_constant_and_does_not_alias():
    torch.testing.assert_close(
        resize_and_crop(torch.full((3, 9, 13), 0.3), 5), torch.full((3, 5, 5), 0.3)
    )
    stripes = torch.ones(3, 64, 64)
    stripes[..., ::2] = -1
    assert resize_and_crop(stripes, 16).abs().max() < 0.1


def test_tensors_and_files_are_resized_alike(tmp_path):
    smooth = Image.fromarray(picture(6, 9)).resize((45, 30), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    by_file = load_images(tmp_path, resolution=12)[0]
    by_tensor = load_images([as_tensor(np.array(smooth))], resolution=12)[0]
    torch.testing.assert_close(by_file, by_tensor, atol=0.03, rtol=0)


def test_without_a_resolution_sizes_stay():
    images = load_images([noise(3, 8, 6), noise(3, 4, 10)])
    assert [tuple(images[i].shape) for i in range(2)] == [(3, 8, 6), (3, 4, 10)]


# Splitting ----------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.floats(0, 0.99), st.integers(0, 5))
def test_splits_are_disjoint_whole_and_repeatable(count, fraction, seed):
    images = load_images(torch.zeros(count, 3, 1, 1))
    training, held_out = images.split(fraction, seed)
    assert len(training) >= 1
    assert sorted(training.names + held_out.names) == sorted(images.names)
    again = images.split(fraction, seed)
    assert [part.names for part in again] == [training.names, held_out.names]
    if count > 1:
        assert bool(len(held_out)) == (fraction > 0)


def test_splits_carry_the_right_images():
    x = noise(10, 3, 2, 2)
    for part in load_images(x).split(0.3, 0):
        for name, i in zip(part.names, range(len(part)), strict=True):
            assert part[i].equal(x[int(name[1:])])


def test_seeds_split_differently():
    images = load_images(torch.zeros(20, 3, 1, 1))
    assert len({tuple(images.split(0.3, seed)[1].names) for seed in range(5)}) > 1


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_shares_out_of_range(fraction):
    with pytest.raises(InputError, match=r"validation_split must lie in \[0, 1\)"):
        load_images(torch.zeros(3, 3, 1, 1)).split(fraction, 0)


# Errors -------------------------------------------------------------------------------------------


def test_missing_empty_and_unreadable_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_images(tmp_path / "gone")
    with pytest.raises(InputError, match="holds no image file"):
        load_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"none of the 2 images in .* can be read; .* a\.png: not"):
        load_images(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        load_images(tmp_path / "a.png")


def test_a_word_that_is_neither_folder_nor_dataset():
    with pytest.raises(InputError, match="neither a folder here nor a dataset"):
        load_images("no-such-folder-or-dataset")


@pytest.mark.parametrize("source", [[], Wrapped([]), datasets.Dataset.from_dict({"image": []})])
def test_empty_sources(source):
    with pytest.raises(InputError, match="the image source is empty"):
        load_images(source)


def test_sources_without_positions():
    class Stream(IterableDataset):
        def __iter__(self):
            yield noise(3, 8, 8)

    for source in (Stream(), DataLoader(Stream()), iter([noise(3, 8, 8)])):
        with pytest.raises(InputError, match="cannot be read by position"):
            load_images(source)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.full((3, 4, 4), 2.0), r"image #1 has values from 2 to 2, expected \[-1, 1\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"image #1 is torch.int64"),
        (torch.zeros(1, 4, 4), r"image #1 has shape \(1, 4, 4\), expected \(3, H, W\)"),
        (torch.zeros(4, 4), r"image #1 has shape \(4, 4\)"),
        (torch.zeros(3, 0, 4), r"image #1 has shape \(3, 0, 4\)"),
        (torch.full((3, 4, 4), float("nan")), r"image #1 holds NaN or infinite"),
        (torch.full((3, 4, 4), float("inf")), r"image #1 has values from inf"),
        ("a word", r"image #1 is of type str"),
        ({"picture": 1}, r"image #1 is a dictionary with \['picture'\]"),
        ((), r"image #1 is of type tuple"),
    ],
)
def test_items_that_cannot_be_used_are_named(item, message):
    images = load_images([torch.zeros(3, 4, 4), item])
    assert images[0].shape == (3, 4, 4)
    with pytest.raises(InputError, match=message):
        images[1]


def test_nan_is_named_after_resizing_too():
    broken = torch.zeros(3, 8, 8)
    broken[0, 4, 4] = float("nan")
    with pytest.raises(InputError, match="image #0 holds NaN"):
        load_images([broken], resolution=4)[0]


def test_tensors_that_cannot_be_used():
    with pytest.raises(InputError, match=r"at batch positions \[1\]"):
        load_images(torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), float("nan"))]))
    with pytest.raises(InputError, match=r"must lie in \[-1, 1\]"):
        load_images(torch.full((1, 3, 4, 4), 255.0))
    with pytest.raises(InputError, match="must be a tensor"):
        load_images(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("resolution", [0, -8])
def test_resolutions_out_of_range(resolution):
    with pytest.raises(InputError, match="resolution must be at least 1"):
        load_images(torch.zeros(1, 3, 4, 4), resolution=resolution)

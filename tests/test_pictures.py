"""Pictures of every kind: transparent, deep, very long, turned, and broken ones."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from equivae import InputError
from equivae.data import UnreadableImage, load_images, pictures, resizing
from equivae.data.resizing import resize_and_crop
from models import noise

BLUE = torch.tensor([-1.0, -1.0, 1.0])
RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def read(image: Image.Image, **options) -> torch.Tensor:
    return load_images([image], **options)[0]


def saved(image: Image.Image, kind: str, **options) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Image.open(stream)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits: int, colour: int, row: bytes, clear: bytes) -> Image.Image:
    """A PNG of 8x8 pixels in a depth that Pillow does not write."""
    head = struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * 8)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", clear), chunk(b"IDAT", pixels)]
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")))


# Transparency -------------------------------------------------------------------------------------


def _one_look() -> dict[str, Image.Image]:
    """A square on white, green wherever it is transparent, in every form that Pillow has."""
    inside = np.zeros((8, 8), np.uint8)
    inside[2:6, 2:6] = 255
    hidden = np.full((8, 8, 3), [0, 255, 0], np.uint8)
    hidden[2:6, 2:6] = [200, 30, 60]
    rgba = Image.fromarray(np.dstack([hidden, inside]))
    palette = Image.fromarray(inside // 255, "L").convert("P")
    palette.putpalette([0, 255, 0, 200, 30, 60])
    index, table, key = palette.copy(), palette.copy(), Image.fromarray(hidden)
    index.info["transparency"], table.info["transparency"] = 0, bytes([0, 255])
    key.info["transparency"] = (0, 255, 0)
    return {
        "RGBA": rgba,
        "RGBa": rgba.convert("RGBa"),
        "PNG": saved(rgba, "png"),
        "WebP": saved(rgba, "webp", lossless=True),
        "TIFF": saved(rgba, "tiff"),
        "palette, one index": index,
        "palette, alpha table": table,
        "palette PNG": saved(table, "png"),
        "GIF": saved(rgba, "gif"),
        "PA": index.convert("PA"),
        "palette of RGBA": rgba.quantize(4),
        "colour key": key,
        "colour key PNG": saved(key, "png"),
        "bytes": np.asarray(rgba),
    }


@pytest.mark.parametrize("form", _one_look())
def test_one_look_is_one_tensor(form):
    look = np.full((8, 8, 3), 255, np.uint8)
    look[2:6, 2:6] = [200, 30, 60]
    assert read(_one_look()[form]).equal(read(Image.fromarray(look)))


def test_transparent_greys():
    look = np.full((8, 8), 255, np.uint8)
    look[2:6, 2:6] = 90
    hidden = np.where(look == 255, 7, look).astype(np.uint8)
    alpha = np.where(look == 255, 0, 255).astype(np.uint8)
    both = Image.merge("LA", [Image.fromarray(hidden), Image.fromarray(alpha)])
    key = Image.fromarray(hidden)
    key.info["transparency"] = 7
    deep = saved(Image.fromarray(hidden.astype(np.uint16) * 257), "png", transparency=7 * 257)
    for image in (both, both.convert("La"), key, saved(key, "png"), deep):
        for channels in (1, 3):
            expected = read(Image.fromarray(look), channels=channels)
            torch.testing.assert_close(read(image, channels=channels), expected)


@pytest.mark.parametrize(("bits", "value"), [(1, 0), (2, 1), (4, 5), (8, 7), (16, 7)])
def test_the_transparent_grey_of_a_png_is_in_its_own_depth(bits, value):
    white = 2**bits - 1
    if bits == 16:
        row = struct.pack(">8H", *[value] * 4, *[white] * 4)
    else:
        packed = int("".join(f"{v:0{bits}b}" for v in [value] * 4 + [white] * 4), 2)
        row = packed.to_bytes(bits, "big")
    image = read(png(bits, 0, row, struct.pack(">H", value)), background="blue")
    assert image[:, 0, 0].equal(BLUE)
    assert image[:, 0, 7].equal(torch.ones(3))


def test_the_transparent_colour_of_a_deep_png():
    colour = (300, 20000, 65000)
    row = struct.pack(">24H", *colour * 4, *(65535, 0, 0) * 4)
    image = read(png(16, 2, row, struct.pack(">3H", *colour)), background="blue")
    assert image[:, 0, 0].equal(BLUE)
    assert image[:, 0, 7].equal(torch.tensor([1.0, -1.0, -1.0]))


@pytest.mark.parametrize("background", ["blue", "#0000ff", (0, 0, 255)])
def test_the_background_is_an_option(background):
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read(half, background=background)[:, 0, 0].equal(BLUE)


@pytest.mark.parametrize("background", ["bluish", "", (0, 0), (0, 0, 256), (-1, 0, 0), None, 3.5])
def test_backgrounds_that_are_no_colour(background):
    with pytest.raises(InputError, match="background="):
        load_images(noise(1, 3, 8, 8), background=background)


# More than eight bits -----------------------------------------------------------------------------


def _deep() -> dict[str, Image.Image]:
    return {
        "I;16": Image.fromarray(RAMP),
        "I;16B": Image.frombytes("I;16B", (8, 8), RAMP.astype(">u2").tobytes()),
        "I": Image.fromarray(RAMP.astype(np.int32)),
        "F": Image.fromarray((RAMP / 65535).astype(np.float32)),
        "PNG": saved(Image.fromarray(RAMP), "png"),
        "PGM": saved(Image.fromarray(RAMP), "ppm"),
        "TIFF": saved(Image.fromarray(RAMP), "tiff"),
        "float TIFF": saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "tiff"),
        "JPEG 2000": saved(Image.fromarray(RAMP), "jpeg2000"),
        "array": RAMP,
        "colour array": np.stack([RAMP] * 3, -1),
    }


@pytest.mark.parametrize("form", _deep())
def test_deep_pictures_keep_every_shade(form):
    image = read(_deep()[form])
    expected = torch.from_numpy(RAMP.astype(np.float32) / 32767.5 - 1).expand(3, 8, 8)
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    small = read(_deep()[form], resolution=4)
    eight = read(Image.fromarray((RAMP >> 8).astype(np.uint8)), resolution=4)
    torch.testing.assert_close(small, eight, atol=0.02, rtol=0)


def test_deep_pictures_are_turned_as_others_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    turned = torch.from_numpy(np.rot90(RAMP, -1).astype(np.float32)) / 32767.5 - 1
    torch.testing.assert_close(load_images(tmp_path, channels=1)[0][0], turned)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((4, 4), 255.0, np.float32), r"floats \(mode F\) from 255 to 255"),
        (np.full((4, 4), np.nan, np.float32), r"floats \(mode F\) from nan"),
        (np.full((4, 4), 200, np.int32), r"32-bit numbers \(mode I\) from 200 to 200"),
        (np.full((4, 4), -1, np.int32), r"32-bit numbers \(mode I\) from -1 to -1"),
        (np.full((4, 4), 70000, np.int32), r"32-bit numbers \(mode I\) from 70000"),
    ],
)
def test_shades_that_cannot_be_known_are_refused_by_name(tmp_path, image, reason):
    with pytest.raises(UnreadableImage, match=reason):
        read(Image.fromarray(image))
    Image.fromarray(image).save(tmp_path / "a.tiff")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    assert [name for name, _ in load_images(tmp_path).skipped] == ["a.tiff"]


def test_every_mode_is_read_or_refused_by_name():
    for mode in Image.MODES:
        if mode == "LAB":
            with pytest.raises(UnreadableImage, match="mode LAB"):
                read(Image.new(mode, (4, 4)))
        else:
            assert read(Image.new(mode, (4, 4))).shape == (3, 4, 4)


# Sizes --------------------------------------------------------------------------------------------


def test_a_long_picture_takes_little_memory(tmp_path):
    Image.new("1", (1, 20000)).save(tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size < 200
    program = (
        "import resource, torch\n"
        "from equivae.data import load_images\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load_images(torch.zeros(1, 3, 8, 8))\n"
        "before = peak()\n"
        f"image = load_images({str(tmp_path)!r}, resolution=256)[0]\n"
        "assert image.shape == (3, 256, 256) and (image == -1).all()\n"
        "image = load_images([torch.full((3, 20000, 1), 0.5)], resolution=256)[0]\n"
        "assert (image - 0.5).abs().max() < 1e-6\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 500 * 2**20  # the resized whole alone is 5 GB


@pytest.mark.parametrize(("height", "width"), [(60, 90), (700, 300), (64, 64), (33, 500)])
def test_cropping_first_gives_what_cropping_last_gives(monkeypatch, height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 127 + 90 * np.sin(rows / 9)[..., None] * np.cos(
        columns[..., None] / np.array([7, 11, 23])
    )
    image = Image.fromarray(smooth.astype(np.uint8))
    tensor = noise(3, height, width)
    for resolution in (32, 50, 128):
        last = read(image, resolution=resolution), resize_and_crop(tensor, resolution)
        with monkeypatch.context() as patch:
            patch.setattr(pictures, "WHOLE_PIXELS", 0)
            patch.setattr(resizing, "WHOLE_PIXELS", 0)
            first = read(image, resolution=resolution), resize_and_crop(tensor, resolution)
        torch.testing.assert_close(first[0], last[0], atol=1.01 / 127.5, rtol=0)
        torch.testing.assert_close(first[1], last[1], atol=1e-4, rtol=0)


# Broken ones --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x09", b"x"])
def test_malformed_exif_does_not_hide_a_whole_picture(tmp_path, exif):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", exif=exif)
    images = load_images(tmp_path)
    assert images.skipped == []
    assert images[0].shape == (3, 8, 8)


def test_exif_that_cannot_be_written_again_still_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Make", 72.0
    damaged = exif.tobytes().replace(b"\x01\x0f\x00\x02", b"\x01\x1a\x00\x02")  # a number as a word
    rows = np.linspace(0, 255, 8, dtype=np.uint8)
    picture = Image.fromarray(np.tile(rows, (4, 1))).convert("RGB")
    picture.save(tmp_path / "a.jpg", exif=damaged, quality=95)
    with pytest.raises(TypeError), Image.open(tmp_path / "a.jpg") as image:
        ImageOps.exif_transpose(image)
    images = load_images(tmp_path)
    assert images[0].shape == (3, 8, 4)
    assert images[0][0, 0, 0] < images[0][0, -1, 0]


def test_an_orientation_that_is_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png", exif=exif)
    assert load_images(tmp_path)[0].shape == (3, 4, 8)


def test_arrays_of_bytes_with_channels_first_and_last():
    array = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    expected = torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1
    first = torch.from_numpy(array).permute(2, 0, 1)
    for item in (array, array.transpose(2, 0, 1), first):
        torch.testing.assert_close(load_images([item])[0], expected)
    torch.testing.assert_close(load_images(torch.stack([first, first]))[1], expected)
    torch.testing.assert_close(load_images(np.stack([array, array]))[1], expected)
    grey = array[..., :1]
    assert load_images([grey, grey[..., 0]], channels=1)[0].shape == (1, 8, 6)


def test_paths_are_items(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    assert load_images([Path(tmp_path / "a.png")])[0].shape == (3, 4, 4)
    with pytest.raises(UnreadableImage, match="the file is not there"):
        load_images([Path(tmp_path / "b.png")])[0]


@pytest.mark.parametrize("kind", ["tensor", "list", "dataset"])
def test_images_between_0_and_1_raise_a_warning(kind):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    source = {
        "tensor": images,
        "list": list(images),
        "dataset": torch.utils.data.TensorDataset(images),
    }[kind]
    with pytest.warns(UserWarning, match=r"values from 0.* to 1; expected \[-1, 1\]"):
        load_images(source)


def test_other_images_raise_none(recwarn):
    for images in (noise(4, 3, 8, 8), torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.3)):
        load_images(images)
    assert [str(w.message) for w in recwarn] == []

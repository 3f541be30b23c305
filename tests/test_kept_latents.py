"""Latents kept for later runs: used again where nothing changed, never where anything did."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

import equivae
from equivae import InputError, Report
from equivae.autoencoder import Autoencoder
from equivae.errors import WriteError
from equivae.training import kept
from equivae.training.latents import cache_latents, cache_taught
from equivae.training.rows import floats_of
from models import ConvAE, tiny_kl
from test_finetune import IMAGES, changed, finetune, weights


class Counting(Autoencoder):
    """Counts the images that it encodes."""

    seen = 0

    def encode(self, images: Tensor, **options: Any) -> Tensor:
        self.seen += len(images)
        return super().encode(images, **options)


def cache(vae: Any, images: Any, folder: Path, **options: Any) -> tuple[np.ndarray, int]:
    """The latents, and how many images were encoded for them."""
    seen = Counting(vae)
    _ = seen.geometry  # found by calls of its own
    seen.seen = 0
    found = cache_latents(seen, images, folder, kept=folder / "kept", progress=False, **options)
    return found, seen.seen


def entries(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "kept").iterdir() if not p.name.startswith("."))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        noise = np.random.default_rng(index).integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.bmp")
    return folder


def test_a_second_run_encodes_one_image(tmp_path: Path) -> None:
    images = equivae.data.load_images(IMAGES)
    first, encoded = cache(tiny_kl(), images, tmp_path)
    assert encoded == 1 + len(IMAGES)  # one for the shape
    again, encoded = cache(tiny_kl(), equivae.data.load_images(IMAGES), tmp_path)
    assert encoded == 1  # to see that the encoder does the same
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    assert np.array_equal(first, again)
    assert np.array_equal(cache_latents(Autoencoder(tiny_kl()), images, tmp_path), again)
    assert len(entries(tmp_path)) == 1


def test_what_the_decoder_is_does_not_matter_and_what_the_encoder_is_does(tmp_path: Path) -> None:
    images = equivae.data.load_images(IMAGES)
    cache(tiny_kl(), images, tmp_path)

    def encoded_of(change: Any) -> int:
        vae = tiny_kl()
        with torch.no_grad():
            change(vae)
        return cache(vae, images, tmp_path)[1]

    assert encoded_of(lambda vae: vae.decoder.conv_out.weight.mul_(2)) == 1
    assert encoded_of(lambda vae: vae.encoder.conv_in.weight.view(-1)[0].add_(1e-6)) == 9
    assert encoded_of(lambda vae: equivae.set_padding_mode(vae, "reflect")) == 9
    assert cache(tiny_kl(), images, tmp_path, dtype=torch.bfloat16)[1] == 9
    assert len(entries(tmp_path)) == 4


def test_the_code_of_an_encoder_shows_in_its_first_latent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = equivae.data.load_images(IMAGES)
    before, _ = cache(ConvAE(), images, tmp_path)
    before = np.array(before)

    class Other(ConvAE):
        def encode(self, x: Tensor) -> Tensor:
            return super().encode(x) * 2

    Other.__qualname__ = ConvAE.__qualname__
    Other.__repr__ = lambda self: repr(ConvAE())  # type: ignore[method-assign]
    after, encoded = cache(Other(), images, tmp_path)
    assert encoded == 9
    assert "runs otherwise now" in caplog.text
    assert np.allclose(after, 2 * before)


def test_another_picture_of_the_same_size_and_beginning(tmp_path: Path, pictures: Path) -> None:
    def load(**options: Any) -> Any:
        return equivae.data.load_images(pictures, **{"resolution": 32, **options})

    vae = tiny_kl()
    _, encoded = cache(vae, load(), tmp_path)
    assert encoded == 7
    assert cache(vae, load(), tmp_path)[1] == 1
    assert cache(vae, load(resolution=16), tmp_path)[1] == 7
    assert cache(vae, load(background="black"), tmp_path)[1] == 7
    assert cache(vae, load(max_samples=5), tmp_path)[1] == 6
    file, fingerprint = pictures / "3.bmp", load().fingerprint()
    changed_, times = bytearray(file.read_bytes()), file.stat()
    changed_[-1] ^= 255
    file.write_bytes(changed_)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load().fingerprint() == fingerprint  # which looks at the beginning alone
    assert cache(vae, load(), tmp_path)[1] == 7


@pytest.mark.parametrize("damage", ["cut", "flipped", "no about", "other about", "empty"])
def test_damaged_latents_are_computed_again(tmp_path: Path, damage: str) -> None:
    images = equivae.data.load_images(IMAGES)
    first = np.array(cache(tiny_kl(), images, tmp_path)[0])
    (entry,) = entries(tmp_path)
    rows, about = entry / "rows.npy", entry / "about.json"
    content = bytearray(rows.read_bytes())
    content[-5] ^= 1
    if damage == "cut":
        rows.write_bytes(content[:-100])
    elif damage == "flipped":
        rows.write_bytes(content)
    elif damage == "other about":
        about.write_text("[]")
    elif damage == "empty":
        shutil.rmtree(entry)
        entry.mkdir()
    else:
        about.unlink()
    again, encoded = cache(tiny_kl(), images, tmp_path)
    assert encoded == 9
    assert np.array_equal(first, again)
    assert json.loads((entry / "about.json").read_text())["images"] == 8


def test_a_build_that_was_torn_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = equivae.data.load_images(IMAGES)

    def torn(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept, "write_folder_beside", torn)
        with pytest.raises(KeyboardInterrupt):
            cache(tiny_kl(), images, tmp_path)
    assert entries(tmp_path) == []
    # What a kill leaves that nobody could clear away.
    found, encoded = cache(tiny_kl(), images, tmp_path)
    (entry,) = entries(tmp_path)
    half = entry.with_name(f".{entry.name}.partial.npy")
    half.write_bytes((entry / "rows.npy").read_bytes()[:200])
    shutil.rmtree(entry)
    again, encoded = cache(tiny_kl(), images, tmp_path)
    assert encoded == 9
    assert np.array_equal(found, again)
    assert not half.exists()


def test_an_image_that_was_away_for_a_moment_is_kept_for_nobody(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = equivae.data.load_images(pictures, resolution=16)
    (pictures / "4.bmp").rename(pictures / "away")
    found, _ = cache(tiny_kl(), images, tmp_path)
    assert "not kept for other runs" in caplog.text
    assert entries(tmp_path) == []
    assert np.load(tmp_path / "latents.npy").shape == found.shape
    (pictures / "away").rename(pictures / "4.bmp")
    assert cache(tiny_kl(), equivae.data.load_images(pictures, resolution=16), tmp_path)[1] == 7


def _build(folder: Path, told: Any) -> None:
    found, encoded = cache(tiny_kl(), equivae.data.load_images(IMAGES), folder)
    told.put((encoded, float(np.abs(found).sum())))


def test_two_runs_at_once_compute_them_once(tmp_path: Path) -> None:
    images = equivae.data.load_images(IMAGES)
    cache(tiny_kl(), images, tmp_path)
    (entry,) = entries(tmp_path)
    shutil.rmtree(entry)
    context = multiprocessing.get_context("fork")
    told: Any = context.Queue()
    with FileLock(entry.with_name(f".{entry.name}.lock")):  # so that both of them are there
        runs = [context.Process(target=partial(_build, tmp_path, told)) for _ in range(2)]
        for run in runs:
            run.start()
        assert told.empty()
    (one, a), (two, b) = (told.get(timeout=120) for _ in runs)
    for run in runs:
        run.join()
    assert sorted([one, two]) == [1, 9]
    assert a == b


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    images = equivae.data.load_images(IMAGES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(
            WriteError, match=r"latents cannot be kept in .*kept: .*make room there"
        ):
            cache(ConvAE(), images, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path) == []


def test_bf16_takes_half_the_room(tmp_path: Path) -> None:
    vae, images = Autoencoder(tiny_kl()), equivae.data.load_images(IMAGES)
    whole = cache_latents(vae, images, tmp_path, progress=False)
    half = cache_latents(vae, images, tmp_path, dtype=torch.bfloat16, progress=False)
    assert half.nbytes * 2 == whole.nbytes
    exact = torch.from_numpy(whole)
    assert floats_of(half).equal(exact.bfloat16().float())


def test_the_untouched_decodes_depend_on_the_decoder_too(tmp_path: Path) -> None:
    images, folder = equivae.data.load_images(IMAGES), tmp_path / "kept"
    vae = tiny_kl()
    for _ in range(2):
        cache_taught(Autoencoder(vae), images, tmp_path, kept=folder, progress=False)
        assert len(entries(tmp_path)) == 1
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(2)
    cache_taught(Autoencoder(vae), images, tmp_path, kept=folder, progress=False)
    assert len(entries(tmp_path)) == 2


def test_a_fine_tune_from_kept_latents_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})
    monkeypatch.setattr(Report, "to_html", lambda self: "page")
    options: dict[str, Any] = {"train": "decoder", "max_train_steps": 2}
    plain = finetune(tmp_path / "plain", **options).vae
    options["latent_cache_dir"] = str(tmp_path / "kept")
    for name in ("one", "two"):
        again = finetune(tmp_path / name, **options).vae
        assert changed(weights(plain), weights(again)) == set()
    assert len(entries(tmp_path)) == 1


def test_a_folder_that_no_run_would_use_is_refused(tmp_path: Path) -> None:
    kept_in = {"latent_cache_dir": str(tmp_path / "kept")}
    for others in ({}, {"train": "decoder", "crop_size": 8}, {"train": "encoder"}):
        with pytest.raises(InputError, match="latent_cache_dir does nothing"):
            finetune(tmp_path / "out", **kept_in, **others)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"latent_cache_dir .* is a file"):
        finetune(tmp_path / "out", train="decoder", latent_cache_dir=str(tmp_path / "file"))
    assert not (tmp_path / "out").exists()

"""Latents that trainers cached: what is written, that originals stay, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cache_files as made
import equivae
from cache_files import an_op, latents, settle
from equivae import caches
from equivae.caches import kohya, work
from equivae.caches.layout import CacheFormat
from equivae.cli import main
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling
from equivae.operators.fingerprint import Fingerprint

FLUX = LatentScaling(0.3611, 0.1159)


def run(folder: Path, op: object = None, **options: object) -> caches.CacheReport:
    settle(folder)
    return caches.transform(folder, op or an_op(), progress=False, **options)  # type: ignore[arg-type]


def close(found: object, expected: Tensor, atol: float = 1e-4) -> bool:
    return torch.allclose(torch.as_tensor(found), expected, atol=atol)


# What is written -------------------------------------------------------------------------------------


def test_kohya_sd_gets_flipped_latents_and_keeps_every_byte(tmp_path: Path) -> None:
    z = latents(4, 8, 12)
    path = made.kohya(tmp_path, z, mask=True)
    before = made.members(path)
    report = run(tmp_path)
    assert (report.format, report.written, report.latents) == ("kohya", 1, 1)
    after = made.members(path)
    assert set(after) - set(before) == {"latents_flipped.npy"}
    assert all(after[name] == data for name, data in before.items())
    flipped, crop, mask = made.kohya_loads(path, flip=True)
    assert close(flipped, an_op().latent(z))
    assert flipped.dtype == np.float32
    assert crop == [96 - 97, 20]
    assert mask is not None
    assert (mask == np.load(path)["alpha_mask"][:, ::-1]).all()


def test_kohya_flux_is_moved_unscaled_at_every_size(tmp_path: Path) -> None:
    z = [latents(16, 8, 8, seed=1), latents(16, 8, 8, seed=2)]
    path = made.kohya(tmp_path, FLUX.scale(z[0][None])[0] * 0.5, "flux")
    small = FLUX.scale(z[1][None])[0, :, :4] * 0.5
    # A second size in the same file, as sd-scripts keeps it for several resolutions.
    arrays = dict(np.load(path)) | {"latents_4x8": small.numpy()}
    np.savez(path, **arrays)
    op = an_op(channels=16)
    run(tmp_path, op)
    for size, original in (("_8x8", arrays["latents_8x8"]), ("_4x8", small)):
        expected = FLUX.scale(op.latent(FLUX.unscale(torch.as_tensor(original)[None])))[0]
        assert close(np.load(path)[f"latents_flipped{size}"], expected)


def test_kohya_anima_is_one_frame_of_a_video(tmp_path: Path) -> None:
    z = latents(16, 1, 8, 8, std=1.0)
    path = made.kohya(tmp_path, z, "anima")
    run(tmp_path, an_op(channels=16))
    flipped = np.load(path)["latents_flipped_8x8"]
    assert flipped.shape == z.shape
    form = caches.FORMATS["kohya"]
    scaling = form.space(path).scaling
    assert scaling is not None
    assert form.scales(path)
    frame = scaling.unscale(z[:, 0][None])
    assert close(flipped[:, 0], scaling.scale(an_op(channels=16).latent(frame))[0])


@pytest.mark.parametrize(("model", "scaled"), [("sd3", False), ("hi", False), ("lumina", True)])
def test_kohya_scales_some_models_when_it_caches(model: str, scaled: bool, tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(16, 8, 8), model)
    assert caches.FORMATS["kohya"].scales(path) is scaled


def test_lightningdit_keeps_labels_metadata_and_dtype(tmp_path: Path) -> None:
    z = latents(20, 4, 6, 6).half()
    path = made.shard(tmp_path, z)
    before = caches.FORMATS["lightningdit"]
    report = run(tmp_path)
    assert report.latents == 20
    found = made.read(path)
    assert set(found) == {"latents", "labels", "latents_flip"}
    assert found["latents"].equal(z)
    assert found["labels"].equal(torch.arange(20))
    assert found["latents_flip"].dtype == torch.float16
    assert close(found["latents_flip"].float(), an_op().latent(z.float()), atol=0.02)
    assert caches.detect(tmp_path) is before


@pytest.mark.parametrize(
    ("move", "flips"),
    [("hflip", ["flip_x"]), ("vflip", ["flip_y"]), ("rot180", ["flip_x", "flip_y"])],
)
def test_ai_toolkit_finds_the_second_file(move: str, flips: list[str], tmp_path: Path) -> None:
    z = latents(16, 8, 6, std=1.0).bfloat16()
    facts = made.ai_toolkit_facts("my dog.jpg", z)
    path = made.ai_toolkit(tmp_path, facts, latent=z)
    before = path.read_bytes()
    op = an_op(move, 16)
    report = run(tmp_path, op, scaled=FLUX)
    assert (report.format, report.latents) == ("ai_toolkit", 1)
    expected = FLUX.scale(op.latent(FLUX.unscale(z.float()[None])))[0]
    other = made.ai_toolkit_path(tmp_path, facts | dict.fromkeys(flips, True))
    found = made.read(other)["latent"]
    assert found.dtype == torch.bfloat16
    assert close(found.float(), expected, atol=0.05)
    assert path.read_bytes() == before
    again = run(tmp_path, op, scaled=FLUX)
    assert (again.files, again.written, again.done) == (1, 0, 1)


def test_ai_toolkit_video_with_its_first_frame_and_pixels(tmp_path: Path) -> None:
    video, first = latents(4, 3, 6, 6, std=1.0), latents(4, 6, 6, seed=2, std=1.0)
    pixels = torch.arange(3 * 48 * 48).remainder(251).to(torch.uint8).reshape(3, 48, 48)
    facts = made.ai_toolkit_facts("clip.mp4", video, num_frames=9, do_i2v=True)
    sound = torch.ones(2, 5)
    parts = {"latent": video, "first_frame_latent": first, "tensor": pixels, "audio_latent": sound}
    made.ai_toolkit(tmp_path, facts, **parts)
    run(tmp_path, scaled=LatentScaling())
    found = made.read(made.ai_toolkit_path(tmp_path, facts | {"flip_x": True}))
    for t in range(3):
        assert close(found["latent"][:, t], an_op().latent(video[:, t]))
    assert close(found["first_frame_latent"], an_op().latent(first))
    assert found["tensor"].equal(pixels.flip(-1))
    assert found["audio_latent"].equal(sound)


def test_simpletuner_gets_a_second_cache(tmp_path: Path) -> None:
    cache = tmp_path / "vae"
    (cache / "sub").mkdir(parents=True)
    z = latents(4, 8, 8, std=1.0).bfloat16()
    name = "sub/" + hashlib.sha256(b"dog").hexdigest() + ".pt"
    torch.save(z, cache / name)
    before = (cache / name).read_bytes()
    report = run(cache, scaled=LatentScaling(0.13025))
    assert report.format == "simpletuner"
    assert report.output_dir == str(tmp_path / "vae-hflip")
    found = torch.load(tmp_path / "vae-hflip" / name, weights_only=True)
    expected = an_op().latent(z.float() / 0.13025) * 0.13025
    assert found.dtype == torch.bfloat16
    assert close(found.float(), expected, atol=0.05)
    assert (cache / name).read_bytes() == before
    assert run(cache, scaled=LatentScaling(0.13025)).done == 1


def test_plain_tensors_by_name_and_video(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    video = latents(4, 5, 6, 6)
    torch.save({"latents": video, "num_frames": 17}, cache / "clip.pt")
    made.save_file({"latent": latents(2, 4, 6, 6)}, cache / "pair.safetensors", metadata={"a": "b"})
    report = run(cache, an_op("rot90"), scaled=False, output_dir=out)
    assert (report.format, report.latents) == ("plain", 3)
    clip = torch.load(out / "clip.pt", weights_only=True)
    assert clip["num_frames"] == 17
    for t in range(5):
        assert close(clip["latents"][:, t], an_op("rot90").latent(video[:, t]))
    pair = made.read(out / "pair.safetensors")["latent"]
    assert close(pair, an_op("rot90").latent(latents(2, 4, 6, 6)))


def test_the_inverse_is_taken_when_that_is_asked_for(tmp_path: Path) -> None:
    z = latents(4, 6, 6)
    torch.save(z, tmp_path / "a.pt")
    base = an_op("rot90")
    op = equivae.FittedTransform(base.base, base.operator, an_op(seed=3).operator)
    out = tmp_path.with_name("turned")
    run(tmp_path, op, transform="rot270", scaled=False, output_dir=out)
    assert close(torch.load(out / "a.pt", weights_only=True), op.inverse.latent(z))


def test_a_saved_op_and_a_plain_name(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    z = latents(4, 8, 8)
    path = made.kohya(cache, z)
    an_op().save(tmp_path / "op")
    run(cache, tmp_path / "op")
    assert close(np.load(path)["latents_flipped"], an_op().latent(z))
    run(cache, "hflip", overwrite=True)
    assert close(np.load(path)["latents_flipped"], z.flip(-1))


# Again, and beside others ------------------------------------------------------------------------------


def test_a_second_run_touches_nothing(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    run(tmp_path)
    before = path.read_bytes(), path.stat().st_ino
    report = run(tmp_path)
    assert (report.written, report.done) == (0, 1)
    assert (path.read_bytes(), path.stat().st_ino) == before


def test_what_the_tool_flipped_itself_stays(tmp_path: Path) -> None:
    own = latents(4, 8, 8, seed=9).numpy()
    path = made.kohya(tmp_path, latents(4, 8, 8))
    np.savez(path, **dict(np.load(path)), latents_flipped=own)
    (tmp_path / "x").mkdir()
    shard = latents(2, 4, 4, 4)
    made.shard(tmp_path / "x", shard, shard.flip(-1))
    report = run(tmp_path, overwrite=True, format="kohya")
    assert (report.written, report.kept) == (0, 1)
    assert (np.load(path)["latents_flipped"] == own).all()
    report = run(tmp_path / "x", overwrite=True)
    assert (report.written, report.kept) == (0, 1)


def test_another_op_needs_overwrite_and_leaves_the_originals(tmp_path: Path) -> None:
    z = latents(4, 8, 8)
    path = made.kohya(tmp_path, z)
    before = made.members(path)
    run(tmp_path)
    other = an_op(seed=5)
    with pytest.raises(InputError, match="another op; pass overwrite=True"):
        run(tmp_path, other)
    assert run(tmp_path, other, overwrite=True).written == 1
    after = made.members(path)
    assert all(after[name] == data for name, data in before.items())
    assert close(np.load(path)["latents_flipped"], other.latent(z))


def test_sd_scripts_own_flip_over_ours_is_the_tools(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    run(tmp_path)
    np.savez(path, **dict(np.load(path)))  # as sd-scripts does when it adds to a file
    assert run(tmp_path, an_op(seed=5), overwrite=True).kept == 1


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    before = path.read_bytes()
    report = run(tmp_path, dry_run=True)
    assert (report.written, report.latents) == (1, 0)
    assert "would be written" in str(report)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            made.kohya(tmp_path / folder, latents(4, 8, 8, seed=i), image=str(i))
    assert run(tmp_path / "one", "hflip").latents == 3
    assert run(tmp_path / "two", "hflip", num_processes=2).latents == 3
    for path in (tmp_path / "one").iterdir():
        assert made.members(path) == made.members(tmp_path / "two" / path.name)


# What goes wrong --------------------------------------------------------------------------------------


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_killed_in_the_middle_leaves_the_old_file_and_goes_on(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    settle(tmp_path)
    before = path.read_bytes()
    done = in_process(f"""
        import os
        from equivae import caches
        from equivae.caches import kohya
        def killed(path, parts):
            path.write_bytes(parts[0][: len(parts[0]) // 2])
            os._exit(9)
        kohya.write_parts = killed
        caches.transform({str(tmp_path)!r}, "hflip", progress=False)
    """)
    assert done.returncode == 9, done.stderr
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3  # the lock and a half written file
    assert run(tmp_path, "hflip").written == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_in_the_middle(tmp_path: Path) -> None:
    small = made.kohya(tmp_path, latents(4, 8, 8), image="a")
    large = made.kohya(tmp_path, latents(4, 64, 64), image="z")
    settle(tmp_path)
    before = large.read_bytes()
    # The system's own limit on a file's size stands for a disk without room.
    code = f"""
        import resource
        from equivae import caches
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        caches.transform({str(tmp_path)!r}, "hflip", progress=False)
    """
    done = in_process(code)
    assert "InputError" in done.stderr, done.stderr
    assert "which is as it was; make room and run again" in done.stderr
    assert large.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([small.name, large.name])
    report = run(tmp_path, "hflip")
    assert (report.written, report.done) == (1, 1)


def test_no_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    before = path.read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())
    with pytest.raises(InputError, match="make room first"):
        run(tmp_path)
    assert path.read_bytes() == before


class _Usage:
    free = 100


def refuse(folder: Path, match: str, op: object = None, **options: object) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=match) as error:
        run(folder, op, **options)
    assert "\n" not in str(error.value)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_an_unknown_format_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no latents")
    np.savez(tmp_path / "dog_te_outputs.npz", latents=np.zeros(3))
    refuse(tmp_path, "looked for: kohya's .*LightningDiT's .*ai-toolkit's .*SimpleTuner's ")
    with pytest.raises(InputError, match="is not a folder"):
        caches.detect(tmp_path / "nowhere")
    refuse(tmp_path, "Did you mean 'kohya'", format="kohja")


def test_two_formats_in_one_folder(tmp_path: Path) -> None:
    made.kohya(tmp_path, latents(4, 8, 8))
    made.shard(tmp_path, latents(2, 4, 4, 4))
    refuse(tmp_path, "kohya and lightningdit")
    assert run(tmp_path, format="lightningdit").format == "lightningdit"


def test_an_op_for_other_channels_or_another_transform(tmp_path: Path) -> None:
    made.kohya(tmp_path, latents(4, 8, 8))
    refuse(tmp_path, "fitted on 16 channels, the latents of .* have 4", an_op(channels=16))
    refuse(tmp_path, "keeps hflip beside a latent, not 'rot180'", an_op("rot180"))
    refuse(tmp_path, "is for 'hflip', not for 'rot180'", transform="rot180")
    refuse(tmp_path, "hflipp", transform="hflipp")


@pytest.mark.parametrize(("model", "std"), [("sdxl", 1.0), ("sd", 0.9), ("flux", 3.0)])
def test_scaled_taken_for_unscaled_by_their_power(model: str, std: float, tmp_path: Path) -> None:
    made.kohya(tmp_path, latents(16 if model == "flux" else 4, 8, 8, std=std), model)
    refuse(
        tmp_path, "root mean square is .* say which", an_op(channels=16 if model == "flux" else 4)
    )


def of_a_vae(rms: float, channels: int = 4, factor: int = 8) -> equivae.FittedTransform:
    """An op that knows its VAE by what its encoder makes of one picture."""
    op = an_op(channels=channels)
    values = (0.0,) * channels + (rms,) * channels
    op.vae = SimpleNamespace(kind="AutoencoderKL", factor=factor, channels=channels, values=values)
    return op


def test_latents_of_another_vae_by_their_power(tmp_path: Path) -> None:
    made.shard(tmp_path, latents(8, 4, 8, 8, std=8.0))
    refuse(tmp_path, "root mean square of 8.1.* they are another VAE's", of_a_vae(0.9))
    assert run(tmp_path, of_a_vae(6.0)).written == 1


FACTOR = "is for a VAE of factor {} .pixels per latent cell., and the latents of .* have {};"


def test_an_op_for_another_factor(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 12), "sdxl")
    refuse(tmp_path, FACTOR.format(16, 8), of_a_vae(5.5, factor=16))
    # The crop says more than the model in the name, where it is sd-scripts' own.
    made.kohya(tmp_path, latents(4, 8, 12), "sdxl", factor=16)
    path.unlink()
    refuse(tmp_path, FACTOR.format(8, 16), of_a_vae(5.5))
    assert run(tmp_path, of_a_vae(5.5, factor=16)).written == 1


@pytest.mark.parametrize(
    ("model", "crop", "factor"),
    [
        ("sdxl", None, 8),
        ("hi", None, 32),
        ("sdxl", [0, 0, 2001, 1333], 8),  # in the pixels of the original image
        ("sdxl", [16.0, 0.0, 80.0, 96.0], 8),  # a portrait inside its bucket
        ("sdxl", [0, 0, 48, 48], 4),
        ("other", None, None),
    ],
)
def test_kohyas_factor(
    model: str, crop: list[float] | None, factor: int | None, tmp_path: Path
) -> None:
    path = tmp_path / f"dog_0096x0096_{model}.npz"
    more = {} if crop is None else {"crop_ltrb": np.array(crop)}
    np.savez(path, latents=latents(4, 12, 12).numpy(), **more)
    assert caches.FORMATS["kohya"].factor(path) == factor


def test_ai_toolkits_factor(tmp_path: Path) -> None:
    z = latents(4, 8, 6, std=1.0)
    made.ai_toolkit(tmp_path, made.ai_toolkit_facts("dog.png", z), latent=z)
    how = LatentScaling(0.5)
    refuse(tmp_path, FACTOR.format(4, 8), of_a_vae(2.0, factor=4), scaled=how)
    assert run(tmp_path, of_a_vae(2.0), scaled=how).written == 1


def test_an_op_that_names_no_vae_has_the_factor_of_the_one_that_is_passed(tmp_path: Path) -> None:
    made.kohya(tmp_path, latents(4, 8, 8))
    vae = equivae.zoo.load()
    refuse(tmp_path, FACTOR.format(4, 8), an_op(), vae=vae, scaled=False)


def test_an_op_of_another_vae_by_its_fingerprint(tmp_path: Path) -> None:
    made.shard(tmp_path, latents(2, 4, 4, 4, std=2.4))
    op, asked = of_a_vae(2.4), []

    def check_vae(vae: torch.nn.Module, *, strict: bool) -> None:
        asked.append((vae, strict))
        raise InputError("it was fitted to another AutoencoderKL; fit one for this VAE.")

    op.check_vae = check_vae
    vae = equivae.zoo.load()
    refuse(tmp_path, "fitted to another AutoencoderKL", op, vae=vae)
    assert asked == [(vae, True)]


def test_a_cache_that_is_being_written(tmp_path: Path) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    unfinished = tmp_path / "cat.npz.tmp"
    unfinished.write_bytes(b"")
    refuse(tmp_path, "being written: .*cat.npz.tmp is there")
    unfinished.unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    refuse(tmp_path, "not a whole .npz file .* being written")
    path.write_bytes(whole)
    lock = tmp_path / ".equivae-lock"
    lock.write_text("1")
    refuse(tmp_path, "another run .process 1. works in")
    lock.write_text("999999999")
    assert run(tmp_path).written == 1


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.kohya(tmp_path, latents(4, 8, 8))
    settle(tmp_path)
    fresh = latents(4, 8, 8, seed=7)
    move = work._moved

    def meanwhile(*args: object) -> object:
        made.kohya(tmp_path, fresh)
        return move(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "_moved", meanwhile)
    with pytest.raises(InputError, match="changed while it was read"):
        caches.transform(tmp_path, "hflip", progress=False)
    assert close(np.load(path)["latents"], fresh)
    assert "latents_flipped" not in np.load(path)


def test_files_that_would_run_code_or_hold_no_latents(tmp_path: Path) -> None:
    torch.save({"latents": latents(4, 8, 8), "x": Path("/")}, tmp_path / "a.pt")
    refuse(tmp_path, "holds objects, which are not read", format="plain")
    torch.save({"latents": latents(4, 8, 8), "control": latents(3, 8, 8)}, tmp_path / "a.pt")
    refuse(tmp_path, "holds 'control' of shape .3, 8, 8. beside its latents", scaled=False)
    torch.save({"latents": latents(4, 8, 8)}, tmp_path / "a.pt")
    refuse(tmp_path, "do not tell whether their latents are scaled")
    refuse(tmp_path, "lies in the cache", scaled=False, output_dir=tmp_path / "out")
    refuse(tmp_path, "pass the VAE, or scaling_factor", scaled=True)


def test_ai_toolkit_of_a_version_that_hashes_otherwise(tmp_path: Path) -> None:
    z = latents(4, 8, 8, std=1.0)
    path = made.ai_toolkit(tmp_path, made.ai_toolkit_facts("dog.png", z), latent=z)
    path.rename(path.with_name("dog_else.safetensors"))
    refuse(tmp_path, "not the hash of its metadata", scaled=LatentScaling(0.18215))


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    made.kohya(tmp_path, torch.full((4, 8, 8), float("nan")))
    refuse(tmp_path, "not finite")


# Against the images ----------------------------------------------------------------------------------


def test_check_encodes_the_images_again(tmp_path: Path) -> None:
    vae = equivae.zoo.load()
    view = equivae.Autoencoder(vae)
    images = equivae.data.dead_leaves(6, size=64, seed=1)
    op = equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False)
    shown = images[:2].add(1).mul(127.5).round().to(torch.uint8)
    for i, image in enumerate(shown):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    x = shown.float().div(127.5).sub(1)
    with torch.no_grad():
        z, target = view.encode(x), view.encode(x.flip(-1))
    for i in range(2):
        made.kohya(tmp_path, z[i], image=str(i), factor=4)
    report = run(tmp_path, op, check=2, vae=vae, scaled=False)
    assert report.check is not None
    by_hand = float((op.latent(z) - target).norm() / target.norm())
    assert report.check.images == 2
    assert report.check.fitted == pytest.approx(by_hand, abs=1e-3)
    assert report.check.plain == pytest.approx(
        float((z.flip(-1) - target).norm() / target.norm()), abs=1e-3
    )
    assert report.check.fitted < report.check.plain
    assert report.check.unmoved < 1e-3
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").unlink()
    refuse(tmp_path, "no image of the cache was found", op, check=2, vae=vae, scaled=False)
    refuse(tmp_path, "needs the VAE", op, check=2)


# In one's own loop -------------------------------------------------------------------------------------


def test_augment_moves_about_half_and_all_of_them_right() -> None:
    scaling = LatentScaling(0.5, 0.1)
    augment = caches.LatentAugment(an_op(), scaled=scaling)
    z = latents(200, 4, 6, 6, std=1.0)
    moved = scaling.scale(an_op().latent(scaling.unscale(z)))
    result = augment(z, generator=torch.Generator().manual_seed(0))
    as_is = [r.equal(o) for r, o in zip(result, z, strict=True)]
    turned = [close(r, m) for r, m in zip(result, moved, strict=True)]
    assert all(a != t for a, t in zip(as_is, turned, strict=True))
    assert 70 < sum(turned) < 130
    one = caches.LatentAugment(an_op(), 1.0, scaled=scaling)(z[0].half())
    assert one.shape == (4, 6, 6)
    assert one.dtype == torch.float16


def test_augment_with_the_scaling_of_the_vae_that_the_op_was_fitted_on() -> None:
    op, z, factor = a_real_op()
    augment = caches.LatentAugment(op, 1.0, scaled=True)
    assert close(augment(z * factor), op.latent(z) * factor)
    assert close(op.latent(z * factor, scaled=True), op.latent(z) * factor)


def test_augment_wraps_a_dataset() -> None:
    z = latents(3, 4, 6, 6)
    flip = caches.LatentAugment("hflip", p=1.0)
    assert flip.wrap(list(z))[1].equal(z[1].flip(-1))
    latent, label = flip.wrap([(z[0], 7)])[0]
    assert (latent.equal(z[0].flip(-1)), label) == (True, 7)
    item = flip.wrap([{"latents": z[0], "name": "a"}])[0]
    assert (item["latents"].equal(z[0].flip(-1)), item["name"]) == (True, "a")
    assert len(flip.wrap(list(z))) == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: caches.LatentAugment(an_op(), 1.5), "probability"),
        (lambda: caches.LatentAugment(an_op("rot90")), "exchanges height and width"),
        (lambda: caches.LatentAugment(an_op(), scaled="sdxl"), "is a LatentScaling"),
        (lambda: caches.LatentAugment(an_op(), scaled=False), "is a LatentScaling"),
        (lambda: caches.LatentAugment(an_op(), scaled=True), "does not say how its VAE scales"),
        (lambda: caches.LatentAugment(an_op())(torch.zeros(16, 8, 8)), "fitted on 4 channels"),
        (lambda: caches.LatentAugment(an_op())(torch.zeros(8, 8)), "got shape"),
        (lambda: caches.LatentAugment("no/such/op"), "latent op"),
    ],
)
def test_augment_refuses(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()


# The room and the command ---------------------------------------------------------------------------------


def test_importing_the_room_needs_torch_and_safetensors_alone() -> None:
    heavy = (
        "diffusers",
        "datasets",
        "kornia",
        "accelerate",
        "huggingface_hub",
        "matplotlib",
        "PIL",
    )
    code = f"import sys, equivae.caches; print([m for m in {heavy} if m in sys.modules])"
    assert in_process(code).stdout.strip() == "[]"


def test_writing_files_needs_no_diffusers() -> None:
    code = "import sys, equivae.files.writing; print('diffusers' in sys.modules)"
    assert in_process(code).stdout.strip() == "False"


def test_every_format_says_how_it_looks() -> None:
    assert set(caches.FORMATS) == {"kohya", "lightningdit", "ai_toolkit", "simpletuner", "plain"}
    assert all(isinstance(form, CacheFormat) and form.looks for form in caches.FORMATS.values())


def command(monkeypatch: pytest.MonkeyPatch, cache: Path, op: Path, *more: str) -> int:
    """The exit code of `equivae flip-cache`."""
    words = ["flip-cache", "--cache_dir", str(cache), "--latent_op", str(op)]
    monkeypatch.setattr(sys, "argv", ["equivae", *words, *more])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@dataclass(frozen=True)
class Bad:
    """What is wrong with a cache, an op or what is asked for, and what the command line says."""

    says: str
    std: float = 5.5
    channels: int = 4
    factor: int = 8
    values: float = 5.5
    spoil: Callable[[Path, pytest.MonkeyPatch], object] = lambda path, monkeypatch: None
    options: tuple[str, ...] = ()


def fill_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written no longer fits."""
    write = kohya.write_parts

    def writes(to: Path, parts: Iterable[Any]) -> None:
        write(to, parts)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))

    monkeypatch.setattr(kohya, "write_parts", writes)


BAD = {
    "another VAE's, by its fingerprint": Bad(
        "fitted to another AutoencoderKL",
        factor=4,
        spoil=lambda path, _: made.kohya(path.parent, latents(4, 8, 8), factor=4),
        options=("--pretrained_model_name_or_path", "embedded"),
    ),
    "another VAE's, by its power": Bad("they are another VAE's", std=30.0),
    "scaled latents taken for unscaled": Bad("taken for unscaled", std=1.0),
    "an unknown format": Bad("holds no cached latents", spoil=lambda path, _: path.unlink()),
    "a format that is not its own": Bad("looked for ai", options=("--format", "ai_toolkit")),
    "a format that does not exist": Bad("is unknown", options=("--format", "kohja")),
    "being written, by a name": Bad(
        "cat.npz.tmp is there", spoil=lambda path, _: (path.parent / "cat.npz.tmp").touch()
    ),
    "being written, by its end": Bad(
        "not a whole .npz file", spoil=lambda path, _: path.write_bytes(path.read_bytes()[:-200])
    ),
    "being written, by another run": Bad(
        "another run", spoil=lambda path, _: (path.parent / ".equivae-lock").write_text("1")
    ),
    "another factor": Bad("is for a VAE of factor 16", factor=16),
    "other channels": Bad("was fitted on 16 channels", channels=16),
    "a full disk in the middle": Bad("the disk is full", spoil=fill_the_disk),
    "a disk without room": Bad(
        "make room first",
        spoil=lambda _, monkeypatch: monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage()),
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_a_sentence_and_exit_code_2(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, op = tmp_path / "cache", an_op(channels=bad.channels)
    cache.mkdir()
    path = made.kohya(cache, latents(4, 8, 8, std=bad.std))
    values = (0.0,) * bad.channels + (bad.values,) * bad.channels
    op.vae = Fingerprint("AutoencoderKL", bad.factor, bad.channels, values)
    op.save(tmp_path / "op")
    bad.spoil(path, monkeypatch)
    settle(cache)
    before = {p: p.read_bytes() for p in cache.iterdir()}
    assert command(monkeypatch, cache, tmp_path / "op", *bad.options) == 2
    (line,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert bad.says in line
    assert {p: p.read_bytes() for p in cache.iterdir()} == before


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    path = made.kohya(cache, latents(4, 8, 8))
    settle(cache)
    an_op().save(tmp_path / "op")

    def call(*more: str) -> int:
        return command(monkeypatch, cache, tmp_path / "op", *more)

    assert call("--dry_run") == 0
    assert "latents_flipped" not in np.load(path)
    assert call("--format", "lightningdit") == 2
    assert call("--unscaled", "--scaling_factor", "0.5") == 2
    assert "error:" in capsys.readouterr().err
    assert call("--transform", "hflip") == 0
    assert "1 written" in capsys.readouterr().out
    assert "latents_flipped" in np.load(path)


def a_real_op() -> tuple[equivae.FittedTransform, Tensor, float]:
    """An op of the embedded VAE, whose file keeps what it knows of it; latents of images; and its factor."""
    vae, op = equivae.zoo.load(), an_op()
    op.vae = Fingerprint.of(equivae.Autoencoder(vae))
    with torch.no_grad():
        z = equivae.Autoencoder(vae).encode(equivae.data.dead_leaves(4, size=64)).contiguous()
    return op, z, vae.config.scaling_factor


def test_scaled_latents_of_a_tool_that_does_not_scale(tmp_path: Path) -> None:
    op, z, factor = a_real_op()
    path = made.shard(tmp_path, z * factor)
    # The op knows one synthetic picture, with two thirds of the power of photographs.
    refuse(tmp_path, r"taken for unscaled ones.* about 2\.36 unscaled and 1\.00 scaled", op)
    assert "latents_flip" not in made.read(path)
    report = run(tmp_path, op, scaled=True)
    assert "latents taken as scaled, as you say: their root mean square is" in str(report)
    assert close(made.read(path)["latents_flip"], op.latent(z) * factor)
    made.shard(tmp_path, z)
    assert "latents taken as unscaled, as lightningdit keeps them" in str(run(tmp_path, op))
    assert "which looks unscaled" in str(run(tmp_path, op, scaled=True, overwrite=True))
    assert "a plain latent op is the same" in str(run(tmp_path, "hflip", overwrite=True))


def test_the_power_of_a_vae_whose_scaling_factor_is_not_its_own(tmp_path: Path) -> None:
    op = of_a_vae(1.0)
    op.vae.scaling = LatentScaling(0.18215)
    made.shard(tmp_path, latents(8, 4, 8, 8, std=1.1))
    assert run(tmp_path, op).written == 1
    made.shard(tmp_path, latents(8, 4, 8, 8, std=0.2))
    refuse(tmp_path, "taken for unscaled", op)

"""`equivae.caches.transform`: a folder of cached latents, moved by a latent op."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from equivae.caches.check import check_cache
from equivae.caches.detection import cache_files, find_format
from equivae.caches.examine import fit_to_cache
from equivae.caches.layout import CacheFormat, State, Target
from equivae.caches.op import CacheOp, find_op
from equivae.caches.plain import check_manifest, write_manifest
from equivae.caches.report import CacheReport
from equivae.caches.work import work
from equivae.caches.writing import FileStamp, locked, remove_leftovers, stamp
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling
from equivae.transforms import Transform

__all__ = ["transform"]

_FRESH = 3.0  # seconds since the last change: younger, and somebody may be writing


def transform(
    cache_dir: str | Path,
    latent_op: str | Path | Transform,
    *,
    transform: str | None = None,
    format: str = "auto",
    output_dir: str | Path | None = None,
    scaled: bool | LatentScaling | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    check: int = 0,
    vae: nn.Module | str | Path | None = None,
    image_dir: str | Path | None = None,
    num_processes: int = 1,
    progress: bool = True,
) -> CacheReport:
    """Give a folder of cached latents the latents of the moved images, by a latent op alone.

    Every original array stays as it is, bit for bit; a file is replaced in one step, so that a run that is
    killed leaves each as it was or done, and the next run goes on. kohya's and LightningDiT's files get
    their flipped array, ai-toolkit's a second file; for SimpleTuner and for plain tensors, whose tools look
    for no flipped latents, a second folder with the same names is written.

    Args:
        cache_dir: the folder; those below it count.
        latent_op: a folder of `equivae fit`, its name on the hub, a transform, or a plain transform's name.
        transform: the transform that is wanted, such as `"hflip"`; its inverse is taken if that fits.
        format: one of `equivae.caches.FORMATS`, or `"auto"`.
        output_dir: the second folder, `<cache_dir>-<transform>` by default.
        scaled: whether the cache holds scaled latents, or how they are scaled. By default what the format
            says, and then their power has to agree. The numbers are the format's, the op's or the VAE's.
        overwrite: replace what an earlier run wrote with another op; a tool's own latents never.
        dry_run: look at everything, write nothing.
        check: encode the images of so many files again, where they are at hand, and report how far off the
            moved latents are, beside a plain latent op's. Needs `vae`.
        vae: the VAE that made the cache, or where to load it from.
        image_dir: where the images are; by default beside the cache or one folder above.
        num_processes: that share the work. A script has to guard its entry with `__main__` then.
        progress: show a progress bar.

    Returns a `CacheReport`. Raises `InputError`, before anything is written, for an unknown format, an op for
    another transform, number of channels or VAE, latents whose power tells that they are not what they are
    taken for, a cache that is being written, and a disk without room.

    ```python
    import numpy as np
    import torch

    import equivae

    vae = equivae.zoo.load()
    images = equivae.data.dead_leaves(8, size=64)
    op = equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False)
    with torch.no_grad():
        latents = equivae.Autoencoder(vae).encode(images)
    for i, z in enumerate(latents):
        sizes = {"original_size": [64, 64], "crop_ltrb": [0, 0, 64, 64]}
        np.savez(f"{i}_0064x0064_sd.npz", latents=z.numpy(), **sizes)
    report = equivae.caches.transform(".", op, scaled=False, progress=False)
    assert report.latents == 8
    flipped = torch.from_numpy(np.load("0_0064x0064_sd.npz")["latents_flipped"])
    assert torch.allclose(flipped, op.latent(latents[0]), atol=1e-5)
    ```
    """
    began = time.perf_counter()
    folder = Path(cache_dir)
    form = find_format(format, folder)
    op = find_op(latent_op, transform)
    if form.moves and op.move not in form.moves:
        raise InputError(
            f"{form.name} keeps {' and '.join(form.moves)} beside a latent, not {op.move!r}; pass an op "
            "for one of them."
        )
    _check_numbers(check, num_processes, vae)
    files = cache_files(folder, form)
    stamps = {path: stamp(path) for path in files}
    op, loaded, taken = fit_to_cache(form, op, files, scaled, vae)
    target = Target(op, folder, _output(form, folder, output_dir, op))
    if not form.in_place:
        check_manifest(target)
    jobs = _sort(form, files, target, overwrite)
    done_check = None
    if check:
        assert loaded is not None
        done_check = check_cache(form, files, op, loaded, check, folder, image_dir)
    _check_disk(form, jobs.to_do, target)
    _check_quiet(stamps)
    latents = 0
    if not dry_run and jobs.to_do:
        with locked(folder):
            remove_leftovers(folder)
            if target.folder is not None:
                write_manifest(target)
                remove_leftovers(target.folder)
            latents = work(form, jobs.to_do, target, num_processes, progress)
    return CacheReport(
        form.name,
        op.move,
        len(files),
        len(jobs.to_do),
        latents,
        jobs.done,
        jobs.kept,
        None if target.folder is None else str(target.folder),
        dry_run,
        round(time.perf_counter() - began, 3),
        done_check,
        taken,
    )


def _check_numbers(check: int, num_processes: int, vae: object) -> None:
    if check < 0 or num_processes < 1:
        raise InputError(
            f"check must not be negative and num_processes at least 1, got {check} and {num_processes}."
        )
    if check and vae is None:
        raise InputError("check encodes images, which needs the VAE that made the cache: pass vae.")


def _output(
    form: CacheFormat, folder: Path, output_dir: str | Path | None, op: CacheOp
) -> Path | None:
    if form.in_place:
        if output_dir is not None:
            raise InputError(
                f"{form.name} looks for moved latents in the cache itself, so that output_dir has no use; "
                "leave it out."
            )
        return None
    beside = folder.resolve()
    return Path(output_dir) if output_dir else beside.with_name(f"{beside.name}-{op.move}")


@dataclass(frozen=True)
class _Jobs:
    to_do: list[Path]
    done: int
    kept: int


def _sort(form: CacheFormat, files: Sequence[Path], target: Target, overwrite: bool) -> _Jobs:
    states = {path: form.state(path, target) for path in files}
    others = [path for path, state in states.items() if state is State.OTHER_OP]
    if others and not overwrite:
        raise InputError(
            f"{others[0]} holds latents that an earlier run made with another op; pass overwrite=True to "
            "replace them."
        )
    to_do = [path for path, state in states.items() if state is State.MISSING]
    done = sum(state is State.DONE for state in states.values())
    kept = sum(state is State.TOOL for state in states.values())
    return _Jobs(sorted([*to_do, *others]), done, kept)


def _check_disk(form: CacheFormat, files: Sequence[Path], target: Target) -> None:
    """Room for what will be there in the end, and for one file's copy on the way."""
    if not files:
        return
    needed = sum(form.growth(path) for path in files) // 2 + max(map(form.growth, files))
    free = shutil.disk_usage(target.root).free
    if needed > free:
        raise InputError(
            f"the moved latents need about {needed / 1e9:.1f} GB and the disk of {target.root} has "
            f"{free / 1e9:.1f} GB free; make room first."
        )


def _check_quiet(stamps: dict[Path, FileStamp]) -> None:
    """`InputError` when files are still being changed."""
    newest = max(changed for _, changed in stamps.values()) / 1e9
    age = time.time() - newest
    if 0 <= age < _FRESH:
        time.sleep(min(1.0, _FRESH - age))
    for path, before in stamps.items():
        if not path.is_file() or stamp(path) != before:
            raise InputError(
                f"the cache is being written: {path} changed while it was looked at; wait for the tool "
                "that writes it."
            )

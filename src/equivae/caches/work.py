"""The work of a run: files read, their latents moved together, and written while the next ones are moved."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from equivae.caches.layout import CacheFormat, Job, Target
from equivae.caches.op import CacheOp

__all__ = ["work"]

_PART = 256  # files that a process takes at a time
_TOGETHER = (
    4  # latents moved at once: enough to be fast, few enough to stay in the processor's cache
)


def work(
    form: CacheFormat, files: Sequence[Path], target: Target, num_processes: int, progress: bool
) -> int:
    """Write the moved latents of files; how many they were."""
    latents = 0
    with tqdm(total=len(files), desc=target.op.move, unit="file", disable=not progress) as bar:
        one = num_processes == 1 or len(files) == 1
        parts = (
            _write(form, files, target)
            if one
            else _in_processes(form, files, target, num_processes)
        )
        for part, count in parts:
            latents += count
            bar.update(part)
    return latents


def _write(form: CacheFormat, files: Sequence[Path], target: Target) -> Iterator[tuple[int, int]]:
    """Numbers of files and of latents, as they are written.

    What was moved is written by a thread, which waits for the disk while the next latents are moved.
    """
    with ThreadPoolExecutor(1) as writer:
        writing: Future[int] | None = None
        before = 0
        for start in range(0, len(files), _TOGETHER):
            jobs = [form.job(path, target) for path in files[start : start + _TOGETHER]]
            moved = _moved(target.op, jobs)
            if writing is not None:
                yield before, writing.result()
            writing, before = writer.submit(_keep, jobs, moved), len(jobs)
        if writing is not None:
            yield before, writing.result()


def _keep(jobs: Sequence[Job], moved: Sequence[Sequence[Tensor]]) -> int:
    return sum(job.keep(latents) for job, latents in zip(jobs, moved, strict=True))


def _moved(op: CacheOp, jobs: Sequence[Job]) -> list[list[Tensor]]:
    """The moved latents of every job; those of one shape together, a few at a time."""
    groups: dict[tuple[torch.Size, torch.dtype], list[tuple[int, int]]] = {}
    for i, job in enumerate(jobs):
        for k, batch in enumerate(job.latents):
            op.check(batch, job.path)
            groups.setdefault((batch.shape[1:], batch.dtype), []).append((i, k))
    found: list[dict[int, Tensor]] = [{} for _ in jobs]
    for places in groups.values():
        batches = [jobs[i].latents[k] for i, k in places]
        joined = torch.cat(batches) if len(batches) > 1 else batches[0]
        parts = torch.split(_by_parts(op, joined), [len(batch) for batch in batches])
        for (i, k), part in zip(places, parts, strict=True):
            found[i][k] = part
    return [[one[k] for k in range(len(job.latents))] for one, job in zip(found, jobs, strict=True)]


def _by_parts(op: CacheOp, latents: Tensor) -> Tensor:
    if len(latents) <= _TOGETHER:
        return op(latents)
    result: Tensor | None = None
    for start in range(0, len(latents), _TOGETHER):
        part = op(latents[start : start + _TOGETHER])
        if result is None:
            result = part.new_empty(len(latents), *part.shape[1:])
        result[start : start + len(part)] = part
    assert result is not None
    return result


def _in_processes(
    form: CacheFormat, files: Sequence[Path], target: Target, num_processes: int
) -> Iterator[tuple[int, int]]:
    size = max(1, min(_PART, len(files) // num_processes))
    parts = [files[i : i + size] for i in range(0, len(files), size)]
    # A forked process would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, _start_worker) as pool:
        waiting: dict[Future[int], int] = {
            pool.submit(_write_all, form, part, target): len(part) for part in parts
        }
        try:
            while waiting:
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield waiting.pop(future), future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    torch.set_num_threads(1)


def _write_all(form: CacheFormat, files: Sequence[Path], target: Target) -> int:
    return sum(count for _, count in _write(form, files, target))

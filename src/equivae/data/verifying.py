"""Which items of a source can be read, found out in threads, once per file, with a bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

from equivae.data.unreadable import UnreadableImage

__all__ = ["find_unreadable"]

_VERDICTS: dict[Hashable, str | None] = {}  # of files, which several calls of one process read
_MOST_VERDICTS = 200_000


def find_unreadable(
    check: Callable[[int], object],
    keys: Sequence[Hashable],
    *,
    threads: bool = True,
    progress: bool = True,
) -> dict[int, str]:
    """Position to reason, of the items for which `check` raises `UnreadableImage`.

    Args:
        check: reads an item by its position.
        keys: what identifies each item and the check; a verdict is looked up by it, `None` never.
        threads: whether several items may be read at once.
        progress: show a bar when it takes longer than two seconds, on the first process.
    """
    from tqdm.auto import tqdm

    def verdict(index: int) -> str | None:
        try:
            check(index)
        except UnreadableImage as error:
            return error.reason
        return None

    open_ = [i for i, key in enumerate(keys) if key is None or key not in _VERDICTS]
    quiet = not progress or os.environ.get("RANK", "0") != "0"
    workers = min(8, 2 * (os.cpu_count() or 1), len(open_)) if threads else 1
    if len(_VERDICTS) > _MOST_VERDICTS:
        _VERDICTS.clear()
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        results = pool.map(verdict, open_) if workers > 1 else map(verdict, open_)
        bar = tqdm(results, "check images", len(open_), disable=quiet, leave=False, delay=2)
        fresh = dict(zip(open_, bar, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the whole set
    found = {i: fresh[i] if i in fresh else _VERDICTS[key] for i, key in enumerate(keys)}
    _VERDICTS.update((keys[i], reason) for i, reason in fresh.items() if keys[i] is not None)
    return {i: reason for i, reason in found.items() if reason is not None}

"""`check_transform`: the search for an input that breaks a law."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from equivae.errors import InputError, did_you_mean
from equivae.testing.cases import Case
from equivae.testing.errors import Broken, ContractError
from equivae.testing.laws import LAWS
from equivae.transforms import RandomTransform, Transform, get_transform

__all__ = ["check_transform"]

_TRIED_ONCE = {"compile"}  # a trace takes long and does not depend on values


def check_transform(
    transform: Transform | str,
    *,
    factor: int = 8,
    image_channels: int = 3,
    latent_channels: int = 4,
    laws: Iterable[str] | None = None,
    max_examples: int = 10,
) -> None:
    """Verify that a transform keeps the contract; raise `ContractError` if it does not.

    | law | what it says |
    |---|---|
    | shape | samples and channels stay, and the image gets `factor` times the cells of the latent |
    | dtype | both ops keep float32, float64 and bfloat16 |
    | device | both ops stay on the device of their input |
    | mask | it is `None`, or bool of shape `(H', W')` or `(B, 1, H', W')` |
    | determinism | one seed, one result, whatever the global seed |
    | gradient | it flows through both ops, and is that of their values |
    | inverse | if there is one, it undoes both ops, in both orders (see below) |
    | batch independence | no sample changes another, nor does their number, unless `mixes_samples` |
    | factor | what happens to a latent cell, or to a `block` of them, happens to its pixels |
    | compile | `torch.compile` takes both ops whole, if `exact` and not random |

    The inverse of an `exact` transform has to be right to float precision; that of a resampled one
    inside the mask, on smooth images.

    Args:
        transform: a transform or the name of a registered one. A random one is drawn.
        factor: pixels per latent cell along an axis, of space and of time.
        image_channels: channels of the images, for transforms that depend on them.
        latent_channels: channels of the latents.
        laws: the names of the laws to verify; all of `LAWS` without them.
        max_examples: inputs to try per law and layout.

    The message is one sentence with the law and the smallest input found that breaks it. Raises
    `InputError` when hypothesis is not installed, for the name of a law that is none, and for a transform
    that is placed at another factor.

    ```python
    import equivae

    equivae.testing.check_transform("rot180")
    equivae.testing.check_transform(equivae.get_transform("rotate", angle=30), laws=["inverse"])
    ```
    """
    if isinstance(transform, str):
        transform = get_transform(transform)
    chosen = list(LAWS) if laws is None else list(laws)
    for law in chosen:
        if law not in LAWS:
            raise InputError(f"unknown law {law!r}.{did_you_mean(law, LAWS)}")
    transform.at_factor(
        factor, factor
    )  # refused before the search if it is placed at another factor
    for layout in transform.layouts:
        channels = 1 if layout == "audio" else image_channels
        for law in chosen:
            _search(transform, law, layout, (factor, channels, latent_channels), max_examples)


def _search(
    transform: Transform, law: str, layout: str, sizes: tuple[int, int, int], max_examples: int
) -> None:
    hypothesis, strategies = _hypothesis()
    side = strategies.integers(2, 4).map(lambda blocks: blocks * transform.block)
    axes = {"image": 2, "video": 3, "audio": 1}[layout]
    cells = strategies.tuples(*[side] * axes)
    if isinstance(transform, RandomTransform) and transform.swaps_axes:
        # Quarter turns drawn per sample need squares.
        cells = cells.map(lambda drawn: (*drawn[:-1], drawn[-2]))
    cases = strategies.builds(
        Case,
        layout=strategies.just(layout),
        batch=strategies.integers(2 if transform.mixes_samples else 1, 3),
        cells=cells,
        seed=strategies.integers(0, 99),
        factor=strategies.just(sizes[0]),
        image_channels=strategies.just(sizes[1]),
        latent_channels=strategies.just(sizes[2]),
    )

    def trial(case: Case) -> None:
        try:
            LAWS[law](transform, case)
        except Broken as broken:
            reason, cause = str(broken), None
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            reason, cause = f"it raises {type(error).__name__}: {first}", error
        else:
            return
        message = f"transform {transform.name!r} breaks the {law} law: {reason}, on {case}."
        raise ContractError(message, law) from cause

    once = law in _TRIED_ONCE
    search = hypothesis.settings(
        max_examples=1 if once else max_examples,
        phases=[hypothesis.Phase.generate] if once else list(hypothesis.Phase),
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(hypothesis.given(cases)(trial))
    try:
        search()
    except hypothesis.errors.Flaky as error:
        raise ContractError(
            f"transform {transform.name!r} breaks the {law} law, but not always: one and the same input "
            "passes and fails.",
            law,
        ) from error


def _hypothesis() -> tuple[Any, Any]:
    try:
        import hypothesis
        from hypothesis import strategies
    except ImportError as error:
        raise InputError(
            "the contract checks search their inputs with hypothesis, which is not installed; run "
            "`pip install hypothesis`."
        ) from error
    return hypothesis, strategies

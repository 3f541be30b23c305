"""The terms by name, and how they are written: `{"kl": 1e-6, "lpips": {"weight": 0.5, "net": "vgg"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Union

import torch

from equivae.errors import InputError, did_you_mean
from equivae.losses.adversarial import AdversarialLoss
from equivae.losses.alignment import AlignmentLoss
from equivae.losses.charbonnier import CharbonnierLoss
from equivae.losses.consistency import LatentConsistencyLoss
from equivae.losses.kl import KLLoss
from equivae.losses.l1 import L1Loss
from equivae.losses.latent_spectrum import LatentSpectrumLoss
from equivae.losses.latent_std import LatentStdLoss
from equivae.losses.local_correlation import LocalCorrelationLoss
from equivae.losses.low_pass import LowPassMSELoss
from equivae.losses.lpips import LPIPSLoss
from equivae.losses.mse import MSELoss
from equivae.losses.multi_scale import MultiScaleMSELoss
from equivae.losses.perceptual import PerceptualLoss
from equivae.losses.spectrum_matching import EncoderSpectrumLoss
from equivae.losses.ssim import MSSSIMLoss, SSIMLoss
from equivae.losses.style import StyleLoss
from equivae.losses.terms import Term
from equivae.losses.total_variation import TotalVariationLoss
from equivae.options import NOT_NEGATIVE, check_value, quoted
from equivae.transforms.spelling import parse_spelling, split_transforms

__all__ = ["TERMS", "TermsLike", "make_terms", "plain_options", "read_terms"]

TermsLike = Union[Mapping[str, Any], Sequence[str], str, None]
"""Weights by name, weights with options by name, or texts such as `"kl=1e-6,lpips(weight=0.5)"`."""

TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        MSELoss,
        L1Loss,
        CharbonnierLoss,
        SSIMLoss,
        MSSSIMLoss,
        LowPassMSELoss,
        MultiScaleMSELoss,
        LPIPSLoss,
        PerceptualLoss,
        StyleLoss,
        AdversarialLoss,
        AlignmentLoss,
        KLLoss,
        LatentStdLoss,
        LocalCorrelationLoss,
        EncoderSpectrumLoss,
        TotalVariationLoss,
        LatentSpectrumLoss,
        LatentConsistencyLoss,
    )
}
"""Every term by its name; a class of your own is a term too once it is in here."""

_EXAMPLE = "write 'kl=1e-6' or 'adversarial(weight=0.5,start_step=1000)'"


def read_terms(terms: TermsLike) -> dict[str, dict[str, Any]]:
    """Every term's weight and options by name, all of them checked: `{"kl": {"weight": 1e-6}}`.

    Args:
        terms: a mapping from names to weights or to `{"weight": w, **options}`; a text or several, as on the
            command line; or `None` for none.

    Raises `InputError` for a name, an option or a value that there is not.

    ```python
    from equivae.losses import read_terms

    assert read_terms({"kl": 1e-6}) == read_terms("kl=1e-6") == {"kl": {"weight": 1e-6}}
    assert read_terms(["charbonnier(weight=0.5,epsilon=0.01)"])["charbonnier"]["epsilon"] == 0.01
    ```
    """
    if isinstance(terms, str):
        terms = [terms]
    if terms is None:
        terms = {}
    if isinstance(terms, Mapping):
        pairs = list(terms.items())
    elif isinstance(terms, (list, tuple)) and all(isinstance(one, str) for one in terms):
        pairs = [_spelled(member) for text in terms for member in split_transforms(text)]
    else:
        raise InputError(
            f"terms must be a mapping from names to weights, got {quoted(terms)}; {_EXAMPLE}."
        )
    found: dict[str, dict[str, Any]] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"terms has {name!r} twice; give it once, with one weight.")
        found[name] = _checked(name, value)
    return found


def make_terms(
    terms: TermsLike, *, seed: int = 0, image_channels: int = 3
) -> list[tuple[float, Term]]:
    """`(weight, term)` for `Objective`, without those of weight 0.

    Args:
        terms: as in `read_terms`.
        seed: of networks that begin at random.
        image_channels: of the images, for terms that need to know.

    Raises `InputError` as `read_terms` does, and where a network that a term needs cannot be had.

    ```python
    from equivae.losses import make_terms

    [(weight, term)] = make_terms({"total_variation": 0.01})
    ```
    """
    made = []
    for name, options in read_terms(terms).items():
        own = {key: value for key, value in options.items() if key != "weight"}
        if not options["weight"]:
            continue
        if "image_channels" in signature(TERMS[name]).parameters:
            own.setdefault("image_channels", image_channels)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made.append((float(options["weight"]), TERMS[name](**own)))
    return made


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A term's options as JSON has them; a module by the name of its class."""
    return {
        key: type(value).__name__
        if isinstance(value, torch.nn.Module)
        else list(value)
        if isinstance(value, (tuple, list))
        else str(value)
        if isinstance(value, Path)
        else value
        for key, value in options.items()
    }


def _spelled(text: str) -> tuple[str, Any]:
    """`kl=1e-6` or `kl(weight=1e-6)` as a name and its weight or options."""
    short = re.fullmatch(r"\s*(\w+)\s*=\s*([^()=]+?)\s*", text)
    if short is None:
        return parse_spelling(text, kind="term", how=_EXAMPLE)
    try:
        return short[1], float(short[2])
    except ValueError as error:
        raise InputError(
            f"the weight of the term {short[1]!r} must be a number, got {short[2]!r}."
        ) from error


def _checked(name: Any, value: Any) -> dict[str, Any]:
    if name not in TERMS:
        raise InputError(f"unknown term {quoted(name)}.{did_you_mean(str(name)[:60], TERMS)}")
    options = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight = options.pop("weight", 1.0)
    check_value(f"the weight of the term {name!r}", weight, float, range=NOT_NEGATIVE)
    TERMS[name].check_options(options)
    return {"weight": weight, **options}

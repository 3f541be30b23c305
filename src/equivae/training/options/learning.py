"""Which weights of a VAE learn, and whether they learn themselves or through small factors beside them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

from equivae.errors import InputError
from equivae.options import Options, above, at_least, check_value, option, quoted

__all__ = ["Half", "LearningOptions", "Train"]

Train = Literal["all", "decoder", "encoder", "lora"]
Half = Literal["all", "decoder", "encoder"]

_USUAL_RANK = 16
_LARGEST_RANK = 4096


def _check_names(name: str, value: Any) -> None:
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, (list, tuple)):
        raise InputError(f"{name} must be a text or a list of texts, got {quoted(value)}.")
    for one in names:
        check_value(name, one, str)


@dataclass(frozen=True)
class LearningOptions(Options):
    """The half that learns, what in it rests, and low-rank factors."""

    train: Train = option(
        "all",
        "Which weights learn: all, decoder, encoder, or lora, low-rank factors beside those of both halves.",
    )
    freeze: Any = option(
        None,
        "Layers to keep fixed, by name, where * stands for anything: decoder.conv_out*; repeat the option "
        "for more patterns.",
        check=_check_names,
        repeated=True,
    )
    lora_rank: int = option(
        0,
        "Rank of low-rank factors that learn in place of the weights chosen by train; 0 lets those "
        f"weights learn themselves. {_USUAL_RANK} under train='lora', unless given.",
        range=at_least(0, _LARGEST_RANK),
    )
    lora_alpha: float | None = option(
        None, "The factors' product counts alpha / rank times; by default once.", range=above(0)
    )
    lora_target_modules: Any = option(
        None,
        "Layers that get factors, by their names, the ends of their names (to_q), or patterns with * for "
        "anything; by default every convolution and linear layer that learns. Repeat the option for more.",
        check=_check_names,
        repeated=True,
    )

    @property
    def half(self) -> Half:
        """The half of the VAE that learns, in whichever way."""
        return "all" if self.train == "lora" else self.train

    def check(self) -> None:
        for name in ("freeze", "lora_target_modules"):
            names = getattr(self, name) or []
            names = [names] if isinstance(names, str) else list(names)
            object.__setattr__(self, name, names)
        if self.train == "lora" and not self.lora_rank:
            object.__setattr__(self, "lora_rank", _USUAL_RANK)
        for name in ("lora_alpha", "lora_target_modules"):
            if getattr(self, name) and not self.lora_rank:
                raise InputError(
                    f"{name}={quoted(getattr(self, name))} does nothing without low-rank factors; pass "
                    "lora_rank or train='lora', or leave it out."
                )
        if self.lora_rank and importlib.util.find_spec("peft") is None:
            raise InputError(
                "low-rank factors need a package that is not here; `pip install equivae[lora]`."
            )

"""What every term of an objective is: a module that looks at the decodes of a step."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, measuring
from equivae.errors import EmptyMaskError, InputError, did_you_mean
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.reconstruction import Reconstruction, masked
from equivae.options import Range, check_value

__all__ = ["ImageTerm", "Term", "TermContext", "compared"]


@dataclass(frozen=True)
class TermContext:
    """The run that a term is to be part of.

    Attributes:
        vae: the autoencoder.
        train: which half learns: `"all"`, `"decoder"` or `"encoder"`.
        example: an image of the run's size, `(1, C, H, W)` in [-1, 1].
        batch: images per call of the objective, at most.
        sizes: height and width of what is decoded, under every transform that is not drawn.
        mixed_precision: `"no"`, `"fp16"` or `"bf16"`.
        max_steps: of the run.
    """

    vae: Autoencoder
    train: str
    example: Tensor
    batch: int
    sizes: Sequence[tuple[int, ...]] = ()
    mixed_precision: str = "no"
    max_steps: int | None = None

    @property
    def smallest(self) -> int:
        """The shortest side of what is decoded, in pixels."""
        return min(min(size) for size in [self.example.shape[-2:], *self.sizes])


class Term(nn.Module, ABC):
    r"""One summand of an objective, `L = \sum_i w_i L_i`.

    A term gives its value by name, before the objective's weight. As a module it moves with the run, and
    what it remembers is saved and resumed with it.

    Attributes:
        name: what it is called in `terms=`, in the history and in the trackers.
        ranges: the numbers that its options may be.
        only_latents: whether it looks at latents alone, so that only an encoder learns from it.
        needs_grid: whether it is for images and videos, and not for sounds.
        needs_posterior: whether it needs the mean and the variance that the encoder gives.
        validated: whether it belongs to the validation loss.
        adaptive: at whose last layer the objective scales its gradient to that of all other terms, as
            VQGAN does: `"decoder"`, `"encoder"` or nobody's.
        step: optimiser steps of the run so far, which the objective keeps up to date.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, Term
    from equivae.losses.decoding import Contribution


    class LatentPower(Term):
        def forward(self, decoding):
            return [Contribution("latent_power", decoding.latents.square().mean(), 1.0)]


    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(equivae.zoo.load(), loss_fn, terms=[(0.01, LatentPower())])
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert "latent_power" in terms
    ```
    """

    name: ClassVar[str] = ""
    ranges: ClassVar[Mapping[str, Range]] = {}
    only_latents: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = False
    needs_posterior: ClassVar[bool] = False
    validated: ClassVar[bool] = True
    adaptive: str | None = None
    step: int = 0

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, decoding: Decoding) -> list[Contribution]:
        """The summands for one step, their weights relative to the term's own."""

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """`InputError` for options that the constructor does not take, or whose values it does not."""
        taken = inspect.signature(cls).parameters
        for option in options:
            if option not in taken:
                known = did_you_mean(option, ["weight", *taken])
                raise InputError(f"the term {cls.name!r} has no option {option!r}.{known}")
        for option, parameter in taken.items():
            if parameter.default is parameter.empty and option not in options:
                raise InputError(
                    f"the term {cls.name!r} needs {option}; pass it beside the weight."
                )
        hints = get_type_hints(cls.__init__)
        for option, value in options.items():
            given = tuple(value) if isinstance(value, list) else value
            label = f"{option} of the term {cls.name!r}"
            check_value(label, given, hints[option], range=cls.ranges.get(option))
        whole = {n: p.default for n, p in taken.items() if p.default is not p.empty}
        cls.check_together({**whole, **options})

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        """The rules between options, all of which are given; `InputError` for those that contradict."""

    def check_run(self, context: TermContext) -> None:
        """`InputError` where the term can do nothing, or cannot be computed, in a run."""
        if self.needs_grid and context.example.ndim < 4:
            raise InputError(
                f"the term {self.name!r} is for images and videos, and these are sounds; leave it out."
            )
        if self.only_latents and context.train == "decoder":
            raise InputError(
                f"the term {self.name!r} looks at latents alone, and with train='decoder' the encoder does "
                "not learn; leave it out or choose train='all'."
            )
        if self.needs_posterior:
            vae = context.vae
            with measuring(vae.module):
                try:
                    vae.posterior(context.example.to(vae.device, vae.dtype))
                except InputError as error:
                    raise InputError(f"the term {self.name!r} is not available: {error}") from error

    def learning_along(self) -> list[nn.Parameter]:
        """The term's weights that learn with the VAE, by the same optimiser."""
        return [p for p in self.parameters() if p.requires_grad]

    def fixed_modules(self) -> list[nn.Module]:
        """Networks that no run changes and none saves; a resumed run must have the same."""
        return []

    def start(self, vae: Autoencoder, latents: Iterable[Tensor]) -> None:
        """What is measured before anything learns.

        Args:
            vae: the untouched autoencoder.
            latents: of some training images, each `(1, c, h, w)`, modes of their posteriors.
        """


class ImageTerm(Term):
    r"""`R(D(\rho_t z), T_t x)` for every decode of a step, inside the transform's mask.

    Args:
        loss: `R`, a callable `(decoded, target) -> loss` on images `(B, C, H, W)` in [-1, 1] that averages
            over pixels. A subclass overrides `compare` instead.
    """

    def __init__(self, loss: Reconstruction | None = None) -> None:
        super().__init__()
        self.loss = loss

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        """The loss of images `(B, C, H, W)` in [-1, 1], a mean over pixels."""
        if self.loss is None:
            raise NotImplementedError("pass a loss, or override compare")
        return self.loss(decoded, target)

    def forward(self, decoding: Decoding) -> list[Contribution]:
        found = []
        for one in decoding.parts:
            part = one.part
            value = compared(
                self.compare, one.decoded, one.target, one.mask, name=part.name, random=part.random
            )
            if value is None:  # every weight has its gradient, of nothing
                found.append(Contribution(None, one.decoded.float().mean(), 0.0))
            else:
                name = f"{self.name}/{part.name}" if self.name else part.name
                found.append(Contribution(name, value, part.weight))
        return found


def compared(
    loss: Reconstruction,
    seen: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    name: str,
    random: bool,
) -> Tensor | None:
    """The loss inside the mask; `None` where a draw left nothing inside. A fixed transform always would."""
    try:
        return masked(loss, seen, target, mask)
    except EmptyMaskError as error:
        if random:
            return None
        raise EmptyMaskError(f"{name}: {error}") from error

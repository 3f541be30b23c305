"""The adversarial term: a discriminator that learns to tell decodes from images, along with the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.losses.decoding import Contribution, Decoded, Decoding
from equivae.losses.patchgan import Norm, PatchDiscriminator
from equivae.losses.terms import Term, TermContext
from equivae.options import NOT_NEGATIVE, Range, above, at_least, within
from equivae.transforms.base import mask_like

__all__ = ["AdversarialLoss", "Critic"]


class AdversarialLoss(Term):
    r"""What a discriminator `C` makes of every decode, which learns beside the VAE to tell decodes from
    images.

    .. math:: L = -\overline{C(D(\rho_t z))}

    The discriminator, a PatchGAN, sees the same decodes and their targets `x`, and lowers

    .. math:: L_C = \tfrac{1}{2} \overline{\max(0, 1 - C(x))} + \tfrac{1}{2} \overline{\max(0, 1 + C(\hat x))}

    .. math:: {} + \tfrac{\gamma}{2} \overline{\lVert \nabla_x C(x) \rVert^2}

    (hinge; with `loss="non_saturating"` the VAE lowers the mean of `softplus(-C)` of decodes, the
    discriminator that of images and `softplus(C)` of decodes). In a run it has its own optimiser (Adam) and
    schedule, and both are in the checkpoints. With `adaptive` the term is scaled by VQGAN's

    .. math:: \lambda = \lVert \nabla L_{rest} \rVert / (\lVert \nabla L \rVert + 10^{-4}),

    gradients at the decoder's last layer that learns, at most 10^4. Outside the transform's mask the
    discriminator sees the image in both. Values are logits. Sources: Isola et al. (arXiv 1611.07004), Lim and
    Ye (1705.02894), Goodfellow et al. (1406.2661), Esser et al. (2012.09841), Mescheder et al. (1801.04406)
    for `r1`.

    Args:
        start_step: the step of the run from which both learn; the term is 0 before.
        loss: `"hinge"` or `"non_saturating"`.
        adaptive: whether to scale the term so; its gradient is then as strong as the others' times its
            weight.
        r1: gamma, the penalty on the discriminator's gradient at images; with another `norm` than "batch".
        norm: of the discriminator: `"batch"`, `"group"`, `"spectral"` or `"none"`.
        channels: of its first layer.
        depth: its convolutions of stride 2.
        image_channels: of the images.
        learning_rate: its own.
        beta1: of its Adam.
        beta2: of its Adam.
        lr_scheduler: of its learning rate, from `start_step` on: `"constant"`, `"constant_with_warmup"`,
            `"linear"` or `"cosine"`.
        lr_warmup_steps: of its learning rate.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    terms = make_terms({"adversarial": {"weight": 0.5, "channels": 8}})
    objective = Objective(equivae.zoo.load(), equivae.EquivarianceLoss("rot180"), terms=terms)
    loss, values = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    loss, judged = objective.terms[0].critic()  # what the discriminator lowers
    loss.backward()
    assert set(judged) == {"adversarial/images", "adversarial/decoded", "adversarial/discriminator"}
    ```
    """

    name: ClassVar[str] = "adversarial"
    validated: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, Range]] = {
        "start_step": at_least(0),
        "r1": NOT_NEGATIVE,
        "channels": at_least(1, 4096),
        "depth": at_least(1, 8),
        "image_channels": at_least(1, 1024),
        "learning_rate": above(0),
        "beta1": within(0, 1, open_high=True),
        "beta2": within(0, 1, open_high=True),
        "lr_warmup_steps": at_least(0),
    }

    def __init__(
        self,
        *,
        start_step: int = 0,
        loss: Literal["hinge", "non_saturating"] = "hinge",
        adaptive: bool = True,
        r1: float = 0.0,
        norm: Norm = "batch",
        channels: int = 64,
        depth: int = 3,
        image_channels: int = 3,
        learning_rate: float = 1e-4,
        beta1: float = 0.5,
        beta2: float = 0.9,
        lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant",
        lr_warmup_steps: int = 0,
    ) -> None:
        options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.check_options(options)
        self.start_step, self.loss, self.r1, self.norm = start_step, loss, r1, norm
        self.depth, self.image_channels = depth, image_channels
        self.learning_rate, self.betas = learning_rate, (beta1, beta2)
        self.lr_scheduler, self.lr_warmup_steps = lr_scheduler, lr_warmup_steps
        self.adaptive = "decoder" if adaptive else None
        self.critic = Critic(
            PatchDiscriminator(image_channels, channels=channels, depth=depth, norm=norm), loss, r1
        )

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        if options["r1"] and options["norm"] == "batch":
            raise InputError(
                f"r1 of the term {cls.name!r} is a penalty on every image's own gradient, which norm='batch' "
                "mixes with the others'; pass norm='group', 'spectral' or 'none'."
            )

    @property
    def started(self) -> bool:
        """Whether the run has come to `start_step`."""
        return self.step >= self.start_step

    def forward(self, decoding: Decoding) -> list[Contribution]:
        self.critic.seen = []
        if not self.started:
            return []
        found = []
        for shape in dict.fromkeys(one.decoded.shape[1:] for one in decoding.parts):
            group = [one for one in decoding.parts if one.decoded.shape[1:] == shape]
            decoded = torch.cat([_inside(one) for one in group])
            images = torch.cat([one.target.to(decoded.dtype) for one in group])
            self.critic.seen.append((decoded.detach(), images.detach()))
            judged = self.critic.discriminator(decoded)
            sizes = [len(one.decoded) for one in group]
            for one, values in zip(group, torch.split(judged, sizes), strict=True):
                value = _of_images(values, self.loss).mean()
                name = f"{self.name}/{one.part.name}"
                found.append(Contribution(name, value, one.part.weight))
        return found

    def learning_along(self) -> list[nn.Parameter]:
        return []  # the discriminator has an optimiser of its own

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        height, width = context.example.shape[-2:]
        least = 3 * 2**self.depth
        if context.train == "encoder":
            wrong = (
                "teaches a decoder, which does not learn with train='encoder'; choose train='all'"
            )
        elif context.example.ndim != 4 or context.example.shape[1] != self.image_channels:
            kind = "x".join(map(str, context.example.shape[1:]))
            wrong = f"judges images of {self.image_channels} channels, got {kind}; leave it out"
        elif self.norm == "batch" and context.batch < 2:
            wrong = (
                "with norm='batch' needs two images in a batch, got one; raise train_batch_size or pass "
                "norm='group'"
            )
        elif context.max_steps is not None and self.start_step >= context.max_steps:
            wrong = f"starts at step {self.start_step}, and the run has {context.max_steps}; lower start_step"
        elif context.smallest < least:
            wrong = (
                f"with depth={self.depth} needs images of {least} pixels under every transform, got "
                f"{height}x{width}; lower depth or take larger images"
            )
        else:
            return
        raise InputError(f"the term {self.name!r} {wrong}.")


class Critic(nn.Module):
    """A discriminator and what it lowers: `seen`, decodes and images of one shape, without gradients."""

    def __init__(self, discriminator: nn.Module, loss: str, r1: float) -> None:
        super().__init__()
        self.discriminator, self.loss, self.r1 = discriminator, loss, r1
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, *content: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Its loss on what the term saw last, and values by name; `content` is not looked at."""
        losses, real, made = [], [], []
        for decoded, images in self.seen:
            images = images.requires_grad_(self.r1 > 0)
            judged_images = self.discriminator(images)
            judged_decoded = self.discriminator(decoded)
            loss = _of_images(judged_images, self.loss, True) + _of_images(
                judged_decoded, self.loss, False
            )
            loss = loss.mean() / 2 if self.loss == "hinge" else loss.mean()
            if self.r1:
                (slope,) = torch.autograd.grad(judged_images.sum(), images, create_graph=True)
                loss = loss + self.r1 / 2 * slope.square().flatten(1).sum(1).mean()
            losses.append(loss * len(images))
            real.append(judged_images.detach().float().mean() * len(images))
            made.append(judged_decoded.detach().float().mean() * len(images))
        count = sum(len(images) for _, images in self.seen)
        self.seen = []
        loss, images_mean, decoded_mean = (
            torch.stack(v).sum() / count for v in (losses, real, made)
        )
        name = AdversarialLoss.name
        return loss, {
            f"{name}/discriminator": loss.detach(),
            f"{name}/images": images_mean,
            f"{name}/decoded": decoded_mean,
        }


def _of_images(judged: Tensor, loss: str, real: bool | None = None) -> Tensor:
    """What every patch costs: the discriminator for images and for decodes, and the VAE (`None`)."""
    judged = judged.float()
    sign = 1.0 if real is False else -1.0
    if loss == "non_saturating":
        return F.softplus(sign * judged)
    return -judged if real is None else F.relu(1 + sign * judged)


def _inside(one: Decoded) -> Tensor:
    """The decode where the mask holds, the target elsewhere."""
    if one.mask is None:
        return one.decoded
    inside = mask_like(one.mask, one.decoded).to(one.decoded.dtype)
    return one.decoded * inside + one.target.to(one.decoded.dtype) * (1 - inside)

"""The copy that learns: made from the original, with its latent ops, and measured before it changes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, copy_module, measuring, trainable_halves
from equivae.autoencoder.padding import set_padding_mode
from equivae.autoencoder.precision import dtypes_of, restore_dtypes
from equivae.evaluation.latents import Latents
from equivae.evaluation.metrics import MeasureOptions, Metrics, measure
from equivae.losses import AdversarialLoss, EquivarianceLoss, Term
from equivae.losses.masking import LatentMasking
from equivae.operators import operators_of
from equivae.training.config import FinetuneConfig
from equivae.training.learning import learning_names, lora_targets
from equivae.training.lora import Lora
from equivae.training.operators import with_operators
from equivae.training.plan import Plan, loss_of
from equivae.training.session import Session
from equivae.transforms import Transform

__all__ = ["Student", "make_student", "measure_options"]

logger = logging.getLogger(__name__)

_POWER_IMAGES = 64


@dataclass
class Student:
    """What learns in a run.

    Attributes:
        vae: the copy, in float32 on the run's device; mixed precision is autocast's business.
        dtypes: of the original's weights and buffers by name.
        transforms: those that it learns, with fitted latent ops where the options ask for them.
        operators: the modules of latent ops that learn too.
        parameters: the VAE's weights that learn.
        before: the numbers of the untouched VAE.
        latents: of the untouched VAE, by image, to tell how far they drift.
        teacher: the untouched VAE, where the run is held to it.
        reconstruction: the reconstruction loss; a module is a copy without gradients of its own.
        power: the mean square of the untouched VAE's latents, where the encoder's side is weighted.
        lora: low-rank factors, which learn in place of the weights beside them.
        masking: hides cells from the decoder; its token learns too.
        terms: further terms of the loss, on the run's device, each with its weight.
    """

    vae: Autoencoder
    dtypes: dict[str, torch.dtype]
    transforms: list[Transform]
    operators: list[nn.Module]
    parameters: list[nn.Parameter]
    before: Metrics
    latents: Latents = field(default_factory=dict)
    teacher: Autoencoder | None = None
    reconstruction: Any = "mse"
    power: float | None = None
    lora: Lora | None = None
    masking: LatentMasking | None = None
    terms: list[tuple[float, Term]] = field(default_factory=list)

    def loss(self, config: FinetuneConfig) -> EquivarianceLoss:
        """The loss that the options ask for, on this student."""
        loss_fn = loss_of(self.transforms, config, reconstruction=self.reconstruction)
        return loss_fn if self.power is None else loss_fn.with_encoder_reference(self.power)

    def learn(self) -> None:
        """Training mode for what learns; what is frozen stays in evaluation mode."""
        self.vae.module.train()
        for part in self.vae.module.children():
            _rest(part)

    @property
    def operator_parameters(self) -> list[nn.Parameter]:
        return [p for operator in self.operators for p in operator.parameters()]

    @property
    def term_parameters(self) -> list[nn.Parameter]:
        """What the terms learn along with the VAE; a discriminator learns by itself."""
        token = [] if self.masking is None else list(self.masking.parameters())
        return [*(p for _, term in self.terms for p in term.learning_along()), *token]

    @property
    def learning(self) -> list[nn.Parameter]:
        """All weights that learn together."""
        return [*self.parameters, *self.operator_parameters, *self.term_parameters]

    @property
    def trained(self) -> int:
        """How many numbers of the VAE learn, or beside it."""
        return sum(p.numel() for p in self.parameters)

    def as_saved(self) -> nn.Module:
        """A copy of the VAE as it would be saved now: without factors, in the original's dtypes."""
        module = self.vae.module
        model = copy_module(module) if self.lora is None else self.lora.folded()
        restore_dtypes(model.eval(), self.dtypes)
        return model

    def finish(self, original: nn.Module) -> None:
        """Evaluation mode, the original's dtypes, and its choice of weights that require a gradient."""
        if self.lora is not None:
            self.lora.fold()
        model = self.vae.module
        for parameter, source in zip(model.parameters(), original.parameters(), strict=True):
            parameter.requires_grad_(source.requires_grad)
        for operator in self.operators:
            operator.requires_grad_(False)
        _checkpoint_as(model, original)
        restore_dtypes(model.eval(), self.dtypes)


def make_student(plan: Plan, session: Session) -> Student:
    """A copy of the plan's VAE, ready to learn; the original stays as it is."""
    config = plan.config
    model = copy_module(plan.original).to(session.accelerator.device)
    dtypes = dtypes_of(model)
    _to_float32(model)
    vae = Autoencoder(model)
    transforms = with_operators(
        vae,
        plan.transforms,
        plan.training,
        plan.output_dir,
        plan.checkpoint is not None,
        config,
        plan.progress,
    )
    # What was asked for is measured as well where a fitted latent op takes its place.
    compared = list({t.name: t for t in [*transforms, *plan.transforms]}.values())
    latents: Latents = {}
    restore_dtypes(model, dtypes)  # before and after are measured in the dtype that is saved
    before = measure(
        vae,
        plan.measured,
        compared,
        measure_options(plan),
        label="before",
        keep_latents=latents,
    )
    _to_float32(model)
    if config.padding_mode is not None:
        set_padding_mode(model, config.padding_mode)
    teacher = None
    if config.distillation:
        teacher = Autoencoder(copy_module(model).requires_grad_(False).eval())
    terms, power = _started(plan, vae), _power(vae, plan) if config.encoder_weight else None
    lora = _factors(vae, config) if config.lora_rank else None
    operators = operators_of(transforms) if config.train_operator else []
    for operator in operators:
        operator.requires_grad_(True)
    return Student(
        vae=vae,
        dtypes=dtypes,
        transforms=transforms,
        operators=list(operators),
        parameters=_select(vae, config) if lora is None else lora.parameters,
        lora=lora,
        masking=LatentMasking(vae.latent_channels).to(vae.device)
        if config.latent_masking
        else None,
        before=before,
        latents=latents,
        teacher=teacher,
        reconstruction=_own_loss(config.reconstruction, vae.device),
        power=power,
        terms=terms,
    )


def measure_options(plan: Plan) -> MeasureOptions:
    """How the numbers before and after are measured."""
    config = plan.config
    return MeasureOptions(
        batch_size=config.eval_batch_size,
        ceiling=config.sweep_samples > 0,
        sweep_samples=config.sweep_samples,
        seed=config.seed,
        progress=plan.progress,
    )


def _select(vae: Autoencoder, config: FinetuneConfig) -> list[nn.Parameter]:
    """Let gradients reach the chosen weights alone, and return them."""
    names = set(learning_names(vae, config))
    selected = []
    for name, parameter in vae.module.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names:
            selected.append(parameter)
    halves = trainable_halves(vae)
    if config.half == "all" and len(halves) == 1:
        rests = "encoder" if halves == ("decoder",) else "decoder"
        logger.warning(
            "no gradient reaches a weight of the %s of %s, so the %s alone learns.",
            rests,
            type(vae.module).__name__,
            halves[0],
        )
    return selected


def _factors(vae: Autoencoder, config: FinetuneConfig) -> Lora:
    """Low-rank factors beside the layers that were chosen."""
    layers = lora_targets(vae, config)
    return Lora.beside(vae.module, layers, config.lora_rank, config.lora_alpha, seed=config.seed)


def _to_float32(model: nn.Module) -> None:
    # diffusers warns at every `to(dtype)`, whether there is something to cast or not.
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in model.parameters()):
        model.to(torch.float32)


def _rest(module: nn.Module) -> None:
    """Evaluation mode for every part that has weights, none of which learns."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        module.eval()
        return
    for part in module.children():
        _rest(part)


def _own_loss(reconstruction: Any, device: torch.device) -> Any:
    """A loss that is a module as a copy on the device, whose weights get no gradients."""
    if not isinstance(reconstruction, nn.Module):
        return reconstruction
    return copy_module(reconstruction).to(device).requires_grad_(False).eval()


def _started(plan: Plan, vae: Autoencoder) -> list[tuple[float, Term]]:
    """The terms on the run's device, with what they measure before anything learns."""
    for _, term in plan.terms:
        term.to(vae.device)
        if isinstance(term, AdversarialLoss):  # not by the objective's gradients
            term.critic.requires_grad_(False)
        if type(term).start is not Term.start:
            term.start(vae, _first_latents(vae, plan))
    return plan.terms


@torch.no_grad()
def _first_latents(vae: Autoencoder, plan: Plan) -> list[Tensor]:
    """Of the first training images, the same when a run is resumed."""
    with measuring(vae.module):
        return [
            vae.encode(plan.training[i][None].to(vae.device, vae.dtype))
            for i in range(min(len(plan.training), _POWER_IMAGES))
        ]


def _power(vae: Autoencoder, plan: Plan) -> float:
    """The mean square of the untouched VAE's latents."""
    latents = _first_latents(vae, plan)
    return sum(float(z.float().square().mean()) for z in latents) / len(latents)


def _checkpoint_as(model: Any, original: Any) -> None:
    """Gradient checkpointing as the original has it."""
    if getattr(model, "is_gradient_checkpointing", False) and not getattr(
        original, "is_gradient_checkpointing", False
    ):
        model.disable_gradient_checkpointing()

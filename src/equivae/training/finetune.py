"""`finetune`: the training loop, on accelerate, top to bottom."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    set_seed,
)
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from equivae.autoencoder import (
    Autoencoder,
    NoBottleneckError,
    check_images,
    check_resolution,
    check_transforms,
    copy_module,
    layout_of,
)
from equivae.autoencoder.padding import set_padding_mode
from equivae.data.sources import ImageDataset, ImagesLike, collate, load_images
from equivae.errors import InputError
from equivae.evaluation.latent_space import settle_latent_space
from equivae.evaluation.latents import Latents
from equivae.evaluation.metrics import MeasureOptions, Metrics, measure
from equivae.files.hub import open_repo
from equivae.files.pretrained import load_vae, save_vae
from equivae.files.writing import claim_folder, write_beside
from equivae.losses.equivariance import EquivarianceLoss
from equivae.operators import operators_of, save_operators
from equivae.processes import process_state
from equivae.reporting.card import base_model_of, model_card
from equivae.reporting.pictures import choose_images, picture
from equivae.reporting.report import Report
from equivae.symmetry import SymmetrizedVAE
from equivae.training.bottleneck import BottleneckOptions, train_bottleneck
from equivae.training.checkpoints import (
    RunState,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from equivae.training.config import FinetuneConfig, make_config
from equivae.training.crops import check_crop, random_crop
from equivae.training.latents import LATENTS_FILE, WithLatents, cache_latents
from equivae.training.operators import OPERATORS, check_operators, with_operators
from equivae.training.order import Order, draws_of
from equivae.training.watch import Watch, check_weights
from equivae.transforms import Transform, resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["FinetuneResult", "finetune"]

logger = logging.getLogger(__name__)


@dataclass
class FinetuneResult:
    """What `finetune` gives.

    Attributes:
        vae: the fine-tuned autoencoder, of the class and dtype of the one passed in, in eval mode.
        report: the numbers before and after, on images it did not train on.
        history: records of the loss: `step`, `epoch`, `loss`, `learning_rate` and the loss terms, or
            `step`, `epoch`, `validation_loss`.
        output_dir: where VAE, report, figures and checkpoints lie.
        transforms: the transforms that the VAE is equivariant under now; with `train_operator=True` the
            fitted ones carry the trained latent ops, which `output_dir/operators` holds too.
    """

    vae: nn.Module
    report: Report
    history: list[dict[str, float]]
    output_dir: Path
    transforms: list[Transform] = field(default_factory=list)


def finetune(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    output_dir: str | Path = "equivae-out",
    *,
    recipe: str | None = None,
    validation_images: ImagesLike | None = None,
    progress: bool = True,
    **options: Any,
) -> FinetuneResult:
    """Fine-tune a VAE so that a transform of the latent decodes to the same transform of the image.

    The VAE passed in stays as it is; a copy learns. It is saved with `save_pretrained` at the top of
    `output_dir`, beside its model card, `report.json`, `report.md`, the figures and the run's checkpoints,
    and loads in plain diffusers. Where the latents changed, the card says so, and the config gets the scaling
    factor that they ask for now.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups such as `"d4"`, transforms, or a list of those.
        output_dir: a new or empty folder, or that of the run to resume.
        recipe: a named set of options, see `equivae recipes`; the options given stand above it. By
            default `"symmetrized"` for a symmetrized VAE, `"fitted"` where every transform has a fitted
            latent op, and `"equivae"` elsewhere.
        validation_images: images for validation and for the report; without them `validation_split` of
            `images` is held out.
        progress: show progress bars.
        **options: the fields of `equivae.training.FinetuneConfig`, among them `resolution`, `train`,
            `learning_rate`, `train_batch_size`, `max_train_steps`, `mixed_precision`, `use_ema`,
            `checkpointing_steps`, `resume_from_checkpoint`, `padding_mode`, `push_to_hub` and `seed`.

    Raises `InputError` for input that cannot be used, before any work; `NonFiniteLossError`, with the
    step, when the loss stops being a number. The checkpoints up to then are kept. `UploadError` when a
    finished run cannot be uploaded.

    ```python
    import diffusers

    import equivae

    result = equivae.finetune(
        equivae.zoo.load(),
        equivae.data.dead_leaves(8, size=64),
        transforms="rot180",
        output_dir="out",
        max_train_steps=2,
        train_batch_size=2,
    )
    print(result.report.verdict)
    diffusers.AutoencoderKL.from_pretrained("out")
    ```
    """
    wanted = resolve_transforms(transforms)
    original = load_vae(vae)
    recipe = recipe or _recipe_for(original, wanted)
    config = make_config(recipe, options)
    autoencoder = Autoencoder(original)
    check_resolution(config.resolution, autoencoder)
    training, validation = _datasets(images, validation_images, config, autoencoder)
    batch_size = min(config.train_batch_size, len(training))
    check_transforms(wanted, layout_of(training[0][None]), autoencoder, batch_size)
    check_crop(config.crop_size, training[0], autoencoder)
    check_operators(wanted, config)
    height, width = training[0].shape[-2:]
    if config.crop_size:
        height = width = config.crop_size
    _loss(wanted, config).check_size(height, width)
    output_dir = Path(output_dir)
    checkpoint = find_checkpoint(output_dir, config.resume_from_checkpoint)
    if checkpoint is None or checkpoint.resolve().parent != output_dir.resolve():
        claim_folder(output_dir, ours=("logs", LATENTS_FILE, OPERATORS))
    repo = None
    if config.push_to_hub and process_state().is_main_process:
        name = config.hub_model_id or output_dir.resolve().name
        repo = open_repo(name, token=config.hub_token, private=config.hub_private)

    accelerator = _accelerator(config, output_dir)
    set_seed(config.seed)
    progress = progress and accelerator.is_main_process

    # The copy learns in float32 whatever the original's dtype; mixed precision is autocast's business.
    dtype = autoencoder.dtype
    model = copy_module(original).to(accelerator.device)
    _cast(model, torch.float32)
    tuned = Autoencoder(model)
    asked, resuming = wanted, checkpoint is not None
    wanted = with_operators(tuned, asked, training, output_dir, resuming, config, progress)
    loss_fn = _loss(wanted, config)
    # What was asked for is measured as well where a fitted latent op takes its place.
    compared = list({t.name: t for t in [*wanted, *asked]}.values())
    latents_before: Latents = {}
    measured = validation.subset(range(min(len(validation), config.max_eval_samples)))
    before = _measure(tuned, measured, compared, config, progress, keep_latents=latents_before)
    if config.padding_mode is not None:
        set_padding_mode(model, config.padding_mode)
    teacher = None
    if config.distillation:
        teacher = Autoencoder(copy_module(model).requires_grad_(False).eval())
    trainable = _select(tuned, config.train)
    operators = operators_of(wanted) if config.train_operator else []
    moving = [p for operator in operators for p in operator.requires_grad_(True).parameters()]
    early, began = 0, time.perf_counter()
    if checkpoint is None:
        early = _train_bottleneck(tuned, wanted, training, config, progress)
    early_seconds = time.perf_counter() - began
    if config.gradient_checkpointing:
        some = training[0][None, ..., : config.crop_size, : config.crop_size]
        _enable_gradient_checkpointing(tuned, some.to(accelerator.device))

    latents = None
    # Crops are encoded as they come: a crop of a latent knows of pixels beyond the crop of the image.
    frozen = config.train == "decoder" and not config.sample_posterior
    if frozen and not config.encoder_weight and not config.crop_size:
        latents = cache_latents(
            tuned,
            training,
            output_dir,
            batch_size=config.eval_batch_size,
            limit_mb=config.latent_cache_mb,
            progress=progress,
        )
    processes = accelerator.num_processes
    multiple = config.train_batch_size * processes if processes > 1 else 1
    order = Order(len(training), config.seed, multiple)
    loader: Any = DataLoader(
        WithLatents(training, latents),
        config.train_batch_size,
        sampler=order,
        generator=torch.Generator(),  # an iterator's seed, else taken from the global state
        collate_fn=collate,
        num_workers=config.dataloader_num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    groups: list[dict[str, Any]] = [{"params": trainable}]
    if moving:
        groups.append(
            {"params": moving, "lr": config.operator_learning_rate or config.learning_rate}
        )
    trainable = [*trainable, *moving]
    optimizer: Any = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        fused=True,
    )
    objective: Any
    objective, optimizer, loader = accelerator.prepare(
        _Objective(tuned, loss_fn, operators, teacher, config.distillation), optimizer, loader
    )
    per_epoch = math.ceil(len(loader) / config.gradient_accumulation_steps)
    max_steps = config.max_train_steps or config.num_train_epochs * per_epoch
    scheduler = accelerator.prepare(
        get_scheduler(
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.warmup_steps(max_steps),
            num_training_steps=max_steps,
        )
    )
    ema = EMAModel(trainable, config.ema_decay, use_ema_warmup=True) if config.use_ema else None
    if ema is not None:
        ema.to(accelerator.device)

    settled = _fixed_settings(config, recipe, wanted, training, max_steps)
    state = RunState(settled, seconds=early_seconds, bottleneck_steps=early)
    if checkpoint is not None:
        state = load_checkpoint(accelerator, checkpoint, state.settings, ema)
    history = state.history
    watch = Watch(accelerator.device)
    bar = tqdm(total=max_steps, initial=state.step, desc="fine-tune", disable=not progress)
    began = time.perf_counter() - state.seconds
    model.train()

    while state.step < max_steps:
        order.start(state.epoch, state.samples * accelerator.num_processes)
        for batch in loader:
            with accelerator.accumulate(objective):
                draws = draws_of(config.seed, state.epoch, state.samples, accelerator.process_index)
                images_seen = random_crop(batch["images"], config.crop_size, draws)
                loss, terms = objective(images_seen, batch.get("latents"), draws)
                accelerator.backward(loss)
                if accelerator.sync_gradients and config.max_grad_norm:
                    accelerator.clip_grad_norm_(trainable, config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            state.samples += len(batch["images"])
            watch.see(loss.detach(), terms, state.step + 1)
            if not accelerator.sync_gradients:
                continue
            scheduler.step()
            if ema is not None:
                ema.step(trainable)
            state.step += 1
            bar.update()

            last = state.step == max_steps
            saving = last or state.step % config.checkpointing_steps == 0
            if saving or state.step % config.logging_steps == 0:
                record = watch.record(output_dir)  # the one place that waits for the device
                record |= {"step": state.step, "epoch": state.epoch}
                record |= {"learning_rate": scheduler.get_last_lr()[0]}
                history.append(record)
                bar.set_postfix(loss=f"{record['loss']:.4f}", **_short(record))
                accelerator.log(record, step=state.step)
            if config.validation_steps and state.step % config.validation_steps == 0 and not last:
                _validate(objective, validation, config, state, accelerator)
            if saving:
                check_weights(trainable, state.step, output_dir)
                state.seconds = time.perf_counter() - began
                limit = config.checkpoints_total_limit
                save_checkpoint(accelerator, output_dir, state, ema, limit)
            if last:
                break
        else:
            state.epoch, state.samples = state.epoch + 1, 0
            if not config.validation_steps:
                _validate(objective, validation, config, state, accelerator)
    bar.close()
    state.seconds = time.perf_counter() - began
    if state.samples:  # the last pass, whole or not, is done
        state.epoch, state.samples = state.epoch + 1, 0
    if not history or "validation_loss" not in history[-1]:
        _validate(objective, validation, config, state, accelerator)

    if ema is not None:
        ema.copy_to(trainable)
    accelerator.wait_for_everyone()
    for parameter, source in zip(model.parameters(), original.parameters(), strict=True):
        parameter.requires_grad_(source.requires_grad)
    for operator in operators:
        operator.requires_grad_(False)
    _cast(model.eval(), dtype)
    after = _measure(tuned, measured, wanted, config, progress, baseline_latents=latents_before)
    pictured = choose_images(after, 3)
    untouched = Autoencoder(copy_module(original).to(accelerator.device))
    space = settle_latent_space(
        autoencoder,
        tuned,
        training.subset(range(min(len(training), config.max_eval_samples))),
        update_scaling_factor=config.update_scaling_factor,
        eval_batch_size=config.eval_batch_size,
        seed=config.seed,
    )
    settings = {
        "vae": str(vae) if isinstance(vae, (str, Path)) else type(vae).__name__,
        "images": str(images) if isinstance(images, (str, Path)) else len(training),
        "transforms": ",".join(t.name for t in wanted),
        "recipe": recipe,
        "seconds": round(state.seconds, 1),
        "device": str(accelerator.device),
        **config.to_dict(),
        "max_train_steps": max_steps,
        "bottleneck_steps": state.bottleneck_steps,
        "training_images": len(training),
        "measured_on": "training images" if validation is training else "images not trained on",
        **space.settings(),
    }
    report = Report(
        metrics=after,
        before=before,
        panels=picture(tuned, measured, pictured, wanted, config.seed),
        panels_before=picture(untouched, measured, pictured, wanted, config.seed),
        history=history,
        settings=settings,
        skipped=training.skipped,
    )
    if accelerator.is_main_process:
        _save(model, output_dir)
        if operators:
            save_operators(wanted, output_dir / OPERATORS)
        report.save(output_dir, overwrite=True)
        title = repo.repo_id if repo else output_dir.resolve().name
        base = base_model_of(vae, original)
        options = config.to_dict()
        usual = FinetuneConfig().to_dict()
        card = model_card(title, model, base, wanted, recipe, options, usual, report, space)
        write_beside(output_dir / "README.md", card.save)
        if repo is not None:
            repo.upload(output_dir)
    accelerator.end_training()
    return FinetuneResult(model, report, history, output_dir, wanted)


class _Objective(nn.Module):
    """Loss, VAE and trained latent ops as one module, so that accelerate can wrap and save them."""

    def __init__(
        self,
        vae: Autoencoder,
        loss_fn: EquivarianceLoss,
        operators: Sequence[nn.Module],
        teacher: Autoencoder | None,
        distillation: float,
    ) -> None:
        super().__init__()
        self.module = vae.module
        self.operators = nn.ModuleList(operators)
        self._vae, self._loss_fn = vae, loss_fn
        self._teacher, self._distillation = (
            teacher,
            distillation,
        )  # a view, so not saved with the run

    def forward(
        self, images: Tensor, latents: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self._teacher is not None:
            with torch.no_grad():
                latents = self._teacher.encode(images) if latents is None else latents
                taught = self._teacher.decode(latents).to(images.dtype)
                images = torch.lerp(images, taught, self._distillation)
        out = self._loss_fn(self._vae, images, latents=latents, generator=generator)
        return out.loss, out.terms


def _recipe_for(vae: nn.Module, transforms: Sequence[Transform]) -> str:
    if isinstance(vae, SymmetrizedVAE):
        return "symmetrized"
    return "fitted" if transforms and all(operators_of([t]) for t in transforms) else "equivae"


def _datasets(
    images: ImagesLike,
    validation_images: ImagesLike | None,
    config: FinetuneConfig,
    vae: Autoencoder,
) -> tuple[ImageDataset, ImageDataset]:
    options: dict[str, Any] = {"channels": vae.image_channels, **config.reading()}
    dataset = load_images(images, max_samples=config.max_train_samples, **options)
    check_images(dataset[0][None], vae)
    if validation_images is not None:
        validation = load_images(validation_images, **options)
        check_images(validation[0][None], vae)
        return dataset, validation
    training, validation = dataset.split(config.validation_split, config.seed)
    # Without a held-out share the report can only speak of images that were trained on.
    return training, validation if len(validation) else training


def _loss(transforms: Sequence[Transform], config: FinetuneConfig) -> EquivarianceLoss:
    return EquivarianceLoss(
        transforms,
        weight=config.weight,
        reconstruction=config.reconstruction,
        reconstruction_weight=config.reconstruction_weight,
        schedule=config.schedule,
        probability=config.probability,
        encoder_weight=config.encoder_weight,
        sample_posterior=config.sample_posterior,
        chunk_size=config.chunk_size,
    )


def _accelerator(config: FinetuneConfig, output_dir: Path) -> Accelerator:
    # accelerate keeps the precision of a process's first run for all later ones.
    if is_initialized() and AcceleratorState().mixed_precision != config.mixed_precision:
        AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with=config.report_to,
            project_dir=str(output_dir / "logs"),
            step_scheduler_with_optimizer=False,
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=False),
            # A step that draws another transform leaves an operator without a gradient.
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=config.train_operator)
            ],
        )
        if config.report_to:
            plain = {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str))}
            accelerator.init_trackers("equivae", config=plain)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate would train in float32 without a word.
        raise InputError("mixed_precision='fp16' needs a GPU; use 'bf16' or 'no' on the CPU.")
    return accelerator


def _train_bottleneck(
    vae: Autoencoder,
    transforms: Sequence[Transform],
    images: ImageDataset,
    config: FinetuneConfig,
    progress: bool,
) -> int:
    """Train the layers at latent resolution first, where there are some; gives the steps they had."""
    batch = config.train_batch_size * config.gradient_accumulation_steps
    per_epoch = math.ceil(len(images) / (batch * process_state().num_processes))
    following = config.max_train_steps or config.num_train_epochs * per_epoch
    steps = min(config.bottleneck_steps, 2 * following)
    if not steps or config.train != "all" or not config.weight:
        return 0
    options = BottleneckOptions(
        steps=steps,
        learning_rate=config.bottleneck_learning_rate,
        train_batch_size=2 * config.train_batch_size,
        eval_batch_size=config.eval_batch_size,
        crop_size=config.crop_size,
        weight=config.weight,
        mixed_precision=config.mixed_precision,
        seed=config.seed,
        progress=progress,
    )
    try:
        train_bottleneck(vae, transforms, images, options)
    except NoBottleneckError as error:
        logger.info("All layers learn from the first step: %s", error)
        return 0
    return steps


def _select(vae: Autoencoder, train: str) -> list[nn.Parameter]:
    """Let gradients reach the chosen half alone, and return its parameters."""
    encoder, decoder = vae.encoder_parameters(), vae.decoder_parameters()
    chosen = {"all": [*encoder, *decoder], "encoder": encoder, "decoder": decoder}[train]
    identities = {id(parameter) for parameter in chosen}
    selected = [p for p in vae.module.parameters() if id(p) in identities]
    if not selected:
        raise InputError(
            f"train={train!r} leaves nothing to learn: {type(vae.module).__name__} has no such weights."
        )
    vae.module.requires_grad_(False)
    for parameter in selected:
        parameter.requires_grad_(True)
    return selected


def _enable_gradient_checkpointing(vae: Autoencoder, image: Tensor) -> None:
    """`InputError` where there is none, or where latents, images or gradients are not the same with it.

    Of diffusers' classes, AutoencoderTiny's encoder leaves the scaling of its input out under
    checkpointing, and AutoencoderKLMagvit's cache breaks the backward pass.
    """
    model: Any = vae.module
    name = type(model).__name__
    wanted = _values_and_gradients(vae, image)
    try:
        model.enable_gradient_checkpointing()
    except (AttributeError, ValueError) as error:
        raise InputError(f"{name} has no gradient checkpointing.") from error
    try:
        found = _values_and_gradients(vae, image)
        same = all(
            torch.allclose(a, b, rtol=1e-2, atol=1e-2 * float(a.abs().max()))
            for a, b in zip(wanted, found, strict=True)
        )
    except RuntimeError:  # torch's checkpoint notices that the second forward differs
        same = False
    if not same:
        raise InputError(
            f"{name} computes something else under gradient checkpointing, so what it learned would not "
            "hold without; leave gradient_checkpointing out."
        )


def _values_and_gradients(vae: Autoencoder, image: Tensor) -> list[Tensor]:
    values, given = [], image.detach()
    for call in (vae.encode, vae.decode):
        given.requires_grad_()
        result = call(given)
        (gradient,) = torch.autograd.grad(result.float().sum(), given)
        given = result.detach()
        values += [given.clone(), gradient]
    return values


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    # diffusers warns at every `to(dtype)`, whether there is something to cast or not.
    if any(p.is_floating_point() and p.dtype != dtype for p in model.parameters()):
        model.to(dtype)


def _measure(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: list[Transform],
    config: FinetuneConfig,
    progress: bool,
    **latents: Any,
) -> Metrics:
    options = MeasureOptions(
        batch_size=config.eval_batch_size,
        ceiling=config.sweep_samples > 0,
        sweep_samples=config.sweep_samples,
        seed=config.seed,
        progress=progress,
    )
    label = "before" if "keep_latents" in latents else "after"
    return measure(vae, images, transforms, options, label=label, **latents)


@torch.no_grad()
def _validate(
    objective: Any,
    images: ImageDataset,
    config: FinetuneConfig,
    state: RunState,
    accelerator: Accelerator,
) -> None:
    """The whole objective, every transform beside the identity, over the validation images."""
    inner = accelerator.unwrap_model(objective)
    transforms = inner._loss_fn.transforms
    loss_fn = _loss(transforms, config)
    loss_fn.schedule = "dual"
    inner.module.eval()
    images = images.subset(range(min(len(images), config.max_eval_samples)))
    generator = torch.Generator().manual_seed(config.seed)
    total = torch.zeros((), device=accelerator.device)
    loader = DataLoader(images, config.eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]
    for batch in loader:
        with accelerator.autocast():
            out = loss_fn(inner._vae, batch.to(accelerator.device), generator=generator)
        total += out.loss * len(batch)
    inner.module.train()
    value = float(total) / len(images)
    record: dict[str, float] = {"step": state.step, "epoch": state.epoch, "validation_loss": value}
    state.history.append(record)
    accelerator.log(record, step=state.step)


def _save(model: nn.Module, output_dir: Path) -> None:
    """The VAE's files at the top of the output folder, each renamed into place."""
    staging = output_dir / ".vae.partial"
    shutil.rmtree(staging, ignore_errors=True)
    save_vae(model, staging)
    for path in staging.iterdir():
        target = output_dir / path.name
        if target.is_dir():  # of this run before it was resumed; no folder is renamed over another
            shutil.rmtree(target)
        path.replace(target)
    staging.rmdir()


def _fixed_settings(
    config: FinetuneConfig,
    recipe: str,
    transforms: Sequence[Transform],
    images: ImageDataset,
    max_steps: int,
) -> dict[str, Any]:
    """What has to stay the same when a run is resumed."""
    return {
        **config.fixed(),
        "recipe": recipe,
        "transforms": [t.name for t in transforms],
        "images": len(images),
        "max_train_steps": max_steps,
    }


def _short(record: dict[str, float]) -> dict[str, str]:
    """The terms for the progress bar: `rec` and `eq`."""
    shown = {}
    if "reconstruction" in record:
        shown["rec"] = f"{record['reconstruction']:.4f}"
    values = [value for name, value in record.items() if name.startswith("equivariance/")]
    if values:
        shown["eq"] = f"{sum(values) / len(values):.4f}"
    return shown

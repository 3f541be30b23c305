"""The model card that a fine-tune leaves beside the weights: what a stranger needs to use and judge them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from equivae.evaluation.latent_space import LatentSpace
from equivae.files.pretrained import origin_of
from equivae.files.single_file import is_single_file
from equivae.operators import FittedTransform
from equivae.reporting.report import Report
from equivae.reporting.tables import markdown_table
from equivae.reporting.text import Markdown, code, markdown, readable
from equivae.symmetry import SymmetrizedVAE
from equivae.transforms import Transform
from equivae.transforms.lattice import LatticeTransform

__all__ = ["base_model_of", "model_card", "torch_expression"]

_TAGS = ["vae", "autoencoder", "equivariance", "equivae"]
_TOLD = (
    *(
        "resolution",
        "train",
        "schedule",
        "probability",
        "weight",
        "reconstruction",
        "train_batch_size",
    ),
    *("max_train_steps", "learning_rate", "lr_scheduler", "mixed_precision", "use_ema", "seed"),
)
_UNTOLD = ("resume_from_checkpoint", "push_to_hub", "hub_model_id", "hub_private", "license")


@dataclass(frozen=True)
class BaseModel:
    """Where the base came from: a hub name, or else words for it."""

    hub_name: str | None
    words: str


def base_model_of(vae: nn.Module | str | Path, loaded: nn.Module) -> BaseModel:
    """What to call the base. No path of the machine gets into a card.

    Args:
        vae: what was passed.
        loaded: the module; where `load_vae` had it from counts as if it had been passed.
    """
    source = origin_of(loaded) if isinstance(vae, nn.Module) else vae
    if source == "embedded":
        return BaseModel(None, "the embedded VAE of equivae")
    if source is not None and is_single_file(Path(source)):
        return BaseModel(None, f"the file {code(Path(source).name)}")
    noted = getattr(getattr(loaded, "config", None), "_name_or_path", None)
    for name in (source, noted):
        if isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            if not Path(name).exists():
                return BaseModel(name, f"[{name}](https://huggingface.co/{name})")
            return BaseModel(None, f"a local model, {code(Path(name).name)}")
    if source is not None:
        return BaseModel(None, f"a local model, {code(Path(source).name)}")
    return BaseModel(None, f"{_article(type(loaded).__name__)}, passed in as a module")


def model_card(
    title: str,
    model: nn.Module,
    base: BaseModel,
    transforms: Sequence[Transform],
    recipe: str,
    options: Mapping[str, Any],
    usual: Mapping[str, Any],
    report: Report,
    space: LatentSpace,
) -> ModelCard:
    """The card of a fine-tuned VAE.

    Args:
        title: the name of its repository or folder.
        model: the VAE.
        base: what it was fine-tuned from.
        transforms: those that it was fine-tuned for.
        recipe: its name.
        options: of the run, by name.
        usual: their defaults, which are not told.
        report: the numbers.
        space: what became of the latents.
    """
    of_diffusers = hasattr(model, "save_pretrained")
    library = "equivae" if isinstance(model, SymmetrizedVAE) else "diffusers"
    data = ModelCardData(
        license=options["license"] or "unknown",
        library_name=library if of_diffusers else None,
        base_model=base.hub_name,
        tags=list(_TAGS),
    )
    names = [t.name for t in transforms]
    parts = [
        f"# {markdown(title.rsplit('/', 1)[-1])}",
        f"This is {_article(type(model).__name__)}, fine-tuned from {base.words} so that a transform of the "
        f"latent decodes to the same transform of the image: {_listed(names)}.",
        markdown(report.verdict),
        _validity(space, model),
        "## How to use it\n\n" + _usage(title, model, transforms, space, of_diffusers),
        "## Measured\n\n" + "\n".join(report.table()),
        "Errors are MSE in [0, 1] units after clamping, PSNR with them, on "
        f"{report.settings['measured_on']}. "
        "*Round trip*: encode, transform the latent, decode, transform the image back. *Gap*: reconstruction "
        "PSNR minus round-trip PSNR. All numbers are in `report.json`.",
        *(f"![{markdown(alt)}]({name})" for name, alt in report.figure_captions().items()),
        "## Latents\n\n" + _latents(space),
        "## Padding\n\n" + _padding(space, model),
        "## How it was made\n\n" + _making(base, names, recipe, options, usual, report, space),
    ]
    text = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"
    return ModelCard(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def torch_expression(transform: Transform, of: str = "latents") -> str | None:
    """A plain latent op as torch, such as `latents.flip(-1)`; `None` for one that interpolates."""
    if not isinstance(transform, LatticeTransform):
        return None
    turned = f"{of}.transpose(-2, -1)" if transform.transposes else of
    dims = [-2] * transform.flips_height + [-1] * transform.flips_width
    if not dims:
        return turned
    return f"{turned}.flip({dims[0] if len(dims) == 1 else tuple(dims)})"


def _validity(space: LatentSpace, model: nn.Module) -> str:
    if isinstance(model, SymmetrizedVAE):
        return (
            "**Existing diffusion models stay valid: no.** The latents are those of a symmetrized VAE, whose "
            "convention changes at the borders of the fundamental domain; a diffusion model that was trained "
            "on the latents of the VAE inside does not read them."
        )
    if space.unchanged:
        return (
            "**Existing diffusion models stay valid: yes.** The encoder is bit for bit that of the base, so "
            "every image has the latent that it had; the decoder alone is new."
        )
    why = "The encoder was fine-tuned"
    if space.padding_mode != space.base_padding_mode:
        why = f"The VAE pads by {space.padding_mode}, the base by {space.base_padding_mode}"
    return (
        f"**Existing diffusion models stay valid: no.** {why}, so images have other latents than "
        "before, and a diffusion model that was trained on the base's latents has to be trained on these."
    )


def _usage(
    title: str,
    model: nn.Module,
    transforms: Sequence[Transform],
    space: LatentSpace,
    of_diffusers: bool,
) -> str:
    kind = type(model).__name__
    if not of_diffusers:
        return (
            f"The weights of {kind} are `model.safetensors`:\n\n```python\nfrom safetensors.torch import "
            'load_file\n\nvae.load_state_dict(load_file("model.safetensors"))\n```'
        )
    place = json.dumps(title, ensure_ascii=False)  # as Python and JSON both write a string
    lines = [f"from diffusers import {kind}", "", f"vae = {kind}.from_pretrained({place})"]
    if _noted_padding(model) != "zeros" or isinstance(model, SymmetrizedVAE):
        lines = [
            "import equivae",
            "",
            f"vae = equivae.load_vae({place})",
        ]
    if getattr(getattr(model, "config", None), "scaling_factor", None) is not None:
        lines.append("pipeline.vae = vae  # in a pipeline whose diffusion model fits these latents")
    expressed = [(t, torch_expression(t)) for t in transforms]
    plain = [(t.name, moved) for t, moved in expressed if moved]
    lines += (
        ["", *(f"moved = {moved}  # {readable(name)}" for name, moved in plain)] if plain else []
    )
    text = "```python\n" + "\n".join(lines) + "\n```"
    rest = [t.name for t, moved in expressed if moved is None]
    if rest:
        text += (
            f"\n\n{_listed(rest)}: `transform = {_where_from(title, transforms, rest[0])}`, then "
            "`equivae.transform_latents(latents, transform, vae)` (`pip install equivae`) applies it to "
            "latents as a pipeline holds them."
        )
    return text


def _where_from(title: str, transforms: Sequence[Transform], name: str) -> str:
    """The call that gives the transform of a name."""
    fitted = next(t for t in transforms if t.name == name)
    if isinstance(fitted, FittedTransform):
        place = json.dumps(f"{title}/operators/{name}", ensure_ascii=False)
        return f"equivae.load_latent_op({place})"
    return f"equivae.get_transform({json.dumps(name, ensure_ascii=False)})"


def _latents(space: LatentSpace) -> str:
    noted = {n: v for n, v in space.after.items() if not isinstance(v, list)}
    if space.unchanged:
        kept = ", ".join(f"`{n}` {v}" for n, v in noted.items())
        return "As the base's" + (f", and so is their scaling: {kept}." if kept else ".")
    found = space.statistics
    if found is None:
        return "They have no spread that could be measured."
    rows = [
        "| channel | mean | standard deviation |",
        "|---|---|---|",
        *(
            f"| {i} | {mean:.4f} | {std:.4f} |"
            for i, (mean, std) in enumerate(zip(found.mean, found.std, strict=True))
        ),
        f"| all | {found.overall_mean:.4f} | {found.overall_std:.4f} |",
    ]
    names = [n for n in ("scaling_factor", "shift_factor") if n in space.before]
    scaling = [
        "| | base | measured | in this config |",
        "|---|---|---|---|",
        *(
            f"| `{n}` | {space.before.get(n)} | {getattr(found, n):.5f} | {space.after.get(n)} |"
            for n in names
        ),
    ]
    changed = [n for n in space.after if space.after[n] != space.before.get(n)]
    said = (
        "The measured numbers are in the config, for diffusion models that are trained on these latents. "
        "A diffusion model that goes on from the base's weights was trained with the base's numbers; put "
        "them back with `vae.register_to_config(...)` to keep its range."
        if changed
        else "The config holds the base's numbers; `1 / std` would bring the latents to unit variance."
    )
    return "\n".join(
        [
            f"Measured on {found.images} of the training images, before any scaling:",
            "",
            *rows,
            *(["", *scaling] if names else []),
            "",
            said,
        ]
    )


def _noted_padding(model: nn.Module) -> str:
    """What the config says beyond how the class pads, and `load_vae` applies."""
    return getattr(getattr(model, "config", None), "padding_mode", None) or "zeros"


def _padding(space: LatentSpace, model: nn.Module) -> str:
    noted = _noted_padding(model)
    if noted == "zeros":
        if space.padding_mode == "zeros":
            return "Zeros, as diffusers and every other tool pad. Nothing to look after."
        return "As its class pads, in diffusers and everywhere. Nothing to look after."
    how = f"Every convolution pads by `{noted}`."
    if noted == "reflect-convs":
        how = (
            "What convolutions pad by themselves is reflected, and the row and column that downsamplers add "
            "at one side stay zeros (`reflect-convs`)."
        )
    elif space.padding_mode == "mixed":
        how = f"Convolutions pad by `{noted}`, but for those whose class pads in its own forward."
    return (
        f"{how} `config.json` says so in `padding_mode`, which "
        "`equivae.load_vae` applies. **Plain diffusers, ComfyUI, A1111 and kohya's trainers ignore it and "
        "pad by zeros**: the picture is then right inside and off at the borders. In plain diffusers, "
        f'`equivae.set_padding_mode(vae, "{noted}")` after loading does the same.'
    )


def _making(
    base: BaseModel,
    names: Sequence[str],
    recipe: str,
    given: Mapping[str, Any],
    usual: Mapping[str, Any],
    report: Report,
    space: LatentSpace,
) -> str:
    settings = report.settings
    rows = {
        "base model": Markdown(base.words),
        "transforms": ", ".join(names),
        "recipe": recipe,
        "training images": settings["training_images"],
        "seconds": settings["seconds"],
    }
    options = {**given, "max_train_steps": settings["max_train_steps"]}
    options["padding_mode"] = space.padding_mode
    rows |= {
        name: value
        for name, value in options.items()
        if name in _TOLD or (value != usual[name] and name not in _UNTOLD)
    }
    table = markdown_table(("", ""), [(n, markdown(v)) for n, v in rows.items() if v is not None])
    made = report.to_dict()["versions"]
    return (
        f"Fine-tuned with `equivae` {made['equivae']} and diffusers {made['diffusers']}; every option is in "
        "`report.md`.\n\n" + "\n".join(table)
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(code, names)) or "none"


def _article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIO' else 'a'} `{kind}`"

"""The command line: the API's words as commands and options."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

import equivae
from equivae.caches.command import flip_cache
from equivae.errors import InputError, NonFiniteLossError, UploadError
from equivae.operators import FitOptions
from equivae.processes import process_state
from equivae.training.config import RECIPES, FinetuneConfig, make_config
from equivae.transforms.groups import split_transforms
from equivae.transforms.table import transform_table

__all__ = ["app", "main"]

app = typer.Typer(
    help="Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()


def main() -> None:
    """Run the command line: 0 when all went well, 2 for input that cannot be used, 1 for a failed run."""
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except (NonFiniteLossError, UploadError) as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    sys.exit(code)


def _opt(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


Model = Annotated[
    str,
    _opt(
        "pretrained_model_name_or_path",
        "A hub name, a diffusers folder (VAE or pipeline), a .safetensors file, or 'embedded'.",
    ),
]
Transforms = Annotated[str, _opt("transforms", "Comma-separated, such as rot180,hflip or d4.")]
OutputDir = Annotated[Path, _opt("output_dir", "A new or empty folder.")]
TrainDataDir = Annotated[Optional[Path], _opt("train_data_dir", "A folder of images.")]
DatasetName = Annotated[Optional[str], _opt("dataset_name", "A dataset on the hub.")]
Resolution = Annotated[Optional[int], _opt("resolution", "Resize and centre-crop to this side.")]
EvalBatchSize = Annotated[int, _opt("eval_batch_size", "Images per call.")]
MaxSamples = Annotated[Optional[int], _opt("max_samples", "Images used at most.")]
DataDir = Annotated[Optional[Path], _opt("data_dir", "A folder of images.")]
SweepSamples = Annotated[
    int, _opt("sweep_samples", "Images on which angles and scales are swept; 0 for none.")
]
Features = Annotated[
    Optional[str], _opt("features", "inception, for rFID and feature cosine; see equivae[metrics].")
]
Lpips = Annotated[
    Optional[str], _opt("lpips", "alex, vgg or squeeze, for LPIPS; see equivae[metrics].")
]
Subfolder = Annotated[Optional[str], _opt("subfolder", "Of the model, where it has one.")]
Variant = Annotated[Optional[str], _opt("variant", "Of the weights, such as fp16.")]
Revision = Annotated[Optional[str], _opt("revision", "Of the model on the hub.")]
ModelConfig = Annotated[
    Optional[str],
    _opt(
        "model_config_name_or_path",
        "Of a single .safetensors file: sd, sdxl, sd3, flux, or a folder with config.json.",
    ),
]


def _split(transforms: str) -> list[str]:
    names = split_transforms(transforms)
    equivae.resolve_transforms(names)
    return names


def _source(folder: Path | None, dataset: str | None, option: str) -> Path | str:
    if (folder is None) == (dataset is None):
        raise InputError(
            f"pass images with --{option} FOLDER or with --dataset_name NAME, one of them."
        )
    return folder if folder is not None else str(dataset)


def _with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of `FinetuneConfig`; it gets those that were set as `options`."""
    hints = typing.get_type_hints(FinetuneConfig)
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    added = []
    for option in dataclasses.fields(FinetuneConfig):
        kind = str if hints[option.name] is Any else hints[option.name]
        flag = f"--{option.name}"
        if kind is bool:
            flag = f"{flag}/--no_{option.name}"
        default = option.default
        shown = "" if default is None else f" [dim]\\[default: {default}][/dim]"
        info = typer.Option(flag, help=f"{option.metadata['help']}{shown}", show_default=False)
        # None marks an option that was not given, so that a recipe's value stands.
        annotation: Any = Annotated[Optional[kind], info]  # type: ignore[valid-type]
        added.append(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )

    def wrapped(**given: Any) -> None:
        names = {p.name for p in own}
        options = {k: v for k, v in given.items() if k not in names and v is not None}
        command(**{k: v for k, v in given.items() if k in names}, **options)

    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    wrapped.__signature__ = inspect.Signature([*keyword, *added])  # type: ignore[attr-defined]
    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    return wrapped


@app.command()
def demo(
    output_dir: OutputDir = Path("equivae-demo"),
    seed: Annotated[int, _opt("seed", "Of images and draws.")] = 0,
    max_train_steps: Annotated[
        Optional[int], _opt("max_train_steps", "Of each fine-tune; fewer is faster.")
    ] = None,
) -> None:
    """The embedded VAE under 180° rotation: fitted, symmetrized, fine-tuned; minutes on two CPU cores."""
    from equivae.demo import demo as run

    console.print(
        "A latent turned by 180° shall decode to the image turned by 180°: every way to it."
    )
    result = run(output_dir, seed=seed, max_train_steps=max_train_steps)
    # Without lines, so that nothing is cut off in a terminal of 80.
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    heads = ("", "recon-\nstruction", "round\ntrip", "gap", "seconds", "latent\nop")
    for head in (*heads, "old latents\nvalid"):
        table.add_column(head, no_wrap=True)
    for one in result.choices:
        table.add_row(
            one.name,
            f"{one.reconstruction_psnr:.2f} dB",
            f"{one.round_trip_psnr:.2f} dB",
            f"{one.gap_db:.2f} dB",
            f"{one.seconds:.0f}",
            one.latent_op.removesuffix(" grid move"),
            "yes" if one.latents_stay_valid else "no",
        )
    console.print(table)
    console.print(f"Written to [bold]{escape(str(output_dir))}[/]: ", end="")
    console.print(", ".join(sorted(p.name for p in output_dir.iterdir())))


@app.command()
@_with_config
def finetune(
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-out"),
    transforms: Transforms = "rot180",
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    validation_data_dir: Annotated[
        Optional[Path], _opt("validation_data_dir", "A folder of images for the report.")
    ] = None,
    recipe: Annotated[
        Optional[str],
        _opt("recipe", "A named set of options, see `equivae recipes`; else what suits the VAE."),
    ] = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    **options: Any,
) -> None:
    """Fine-tune a VAE so that a transform of the latent decodes to the same transform of the image."""
    source = _source(train_data_dir, dataset_name, "train_data_dir")
    names = _split(transforms)
    make_config(recipe or "equivae", options)
    result = equivae.finetune(
        _load(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        source,
        names,
        output_dir,
        recipe=recipe,
        validation_images=validation_data_dir,
        **options,
    )
    if process_state().is_main_process:
        _show(result.report, output_dir)


@app.command()
def evaluate(
    pretrained_model_name_or_path: Model,
    data_dir: DataDir = None,
    dataset_name: DatasetName = None,
    transforms: Transforms = "rot180",
    latent_op: Annotated[
        Optional[Path], _opt("latent_op", "A folder of `equivae fit`, measured beside the others.")
    ] = None,
    baseline: Annotated[Optional[str], _opt("baseline", "Another VAE, shown as 'before'.")] = None,
    output_dir: Annotated[
        Optional[Path], _opt("output_dir", "Write report.html, .md, .json and figures here.")
    ] = None,
    resolution: Resolution = 256,
    eval_batch_size: EvalBatchSize = 4,
    max_samples: MaxSamples = None,
    sweep_samples: SweepSamples = 4,
    features: Features = None,
    lpips: Lpips = None,
    seed: Annotated[int, _opt("seed", "Of that draw.")] = 0,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
) -> None:
    """Measure reconstruction and equivariance of a VAE, on its own or against a baseline."""
    from equivae.files.writing import claim_folder

    source = _source(data_dir, dataset_name, "data_dir")
    wanted: list[Any] = [*_split(transforms)]
    if latent_op is not None:
        wanted.append(equivae.load_latent_op(latent_op))
    if output_dir is not None:
        claim_folder(output_dir)
    report = equivae.evaluate(
        _load(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        source,
        wanted,
        baseline=baseline,
        resolution=resolution,
        eval_batch_size=eval_batch_size,
        max_samples=max_samples,
        sweep_samples=sweep_samples,
        features=features,  # type: ignore[arg-type]
        lpips=lpips,  # type: ignore[arg-type]
        seed=seed,
    )
    if not process_state().is_main_process:
        return
    if output_dir is not None:
        report.save(output_dir)
    _show(report, output_dir)


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(help="Two or more: hub names, folders, .safetensors files or 'embedded'."),
    ],
    data_dir: DataDir = None,
    dataset_name: DatasetName = None,
    transforms: Transforms = "rot180",
    output_dir: Annotated[
        Optional[Path], _opt("output_dir", "Write comparison.html, .md, .json and figures here.")
    ] = None,
    resolution: Resolution = 256,
    eval_batch_size: EvalBatchSize = 4,
    max_samples: MaxSamples = None,
    sweep_samples: SweepSamples = 4,
    features: Features = None,
    lpips: Lpips = None,
    seed: Annotated[int, _opt("seed", "Of that draw.")] = 0,
) -> None:
    """Measure several VAEs on the same images, side by side in one table and one figure."""
    from equivae.files.writing import claim_folder

    source = _source(data_dir, dataset_name, "data_dir")
    wanted = _split(transforms)
    if output_dir is not None:
        claim_folder(output_dir)
    found = equivae.compare(
        models,
        source,
        wanted,
        resolution=resolution,
        eval_batch_size=eval_batch_size,
        max_samples=max_samples,
        sweep_samples=sweep_samples,
        features=features,  # type: ignore[arg-type]
        lpips=lpips,  # type: ignore[arg-type]
        seed=seed,
    )
    if not process_state().is_main_process:
        return
    table = Table("metric", *map(escape, found.metrics))
    for row in found.rows():
        table.add_row(*row)
    console.print(table)
    if output_dir is not None:
        found.save(output_dir)
    _conclude(found.verdict, found.skipped, output_dir)


@app.command()
def fit(
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-latent-op"),
    transforms: Annotated[
        str, _opt("transforms", "The transform to fit, such as rot180.")
    ] = "rot180",
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    kernel_size: Annotated[str, _opt("kernel_size", "Odd number of latent cells, or auto.")] = "5",
    method: Annotated[
        str, _opt("method", "linear, or network: a small residual network on top of it.")
    ] = "linear",
    padding: Annotated[
        str, _opt("padding", "Cells beyond the border: zeros, replicate or reflect.")
    ] = "zeros",
    ridge: Annotated[
        Optional[float], _opt("ridge", "Of the least squares; else held-out images choose it.")
    ] = None,
    involution: Annotated[
        bool, typer.Option("--involution", help="Project a 1x1 operator to eigenvalues of +1, -1.")
    ] = False,
    name: Annotated[Optional[str], _opt("name", "Of the fitted transform.")] = None,
    resolution: Resolution = 256,
    max_samples: MaxSamples = None,
    validation_split: Annotated[
        float, _opt("validation_split", "Share of the images held out.")
    ] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    mixed_precision: Annotated[str, _opt("mixed_precision", "no, fp16 or bf16.")] = "no",
    seed: Annotated[int, _opt("seed", "Of the split and of the network.")] = 0,
    max_train_steps: Annotated[int, _opt("max_train_steps", "Of the network.")] = 300,
    learning_rate: Annotated[float, _opt("learning_rate", "Of the network.")] = 1e-3,
    width: Annotated[int, _opt("width", "Channels inside the network.")] = 64,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
) -> None:
    """Fit a latent op in closed form, in seconds, the VAE untouched; `evaluate --latent_op` measures it."""
    from equivae.files.writing import claim_folder

    source = _source(train_data_dir, dataset_name, "train_data_dir")
    names = _split(transforms)
    if len(names) != 1:
        raise InputError(f"one transform is fitted at a time, got {transforms!r}; pass one name.")
    if kernel_size != "auto" and not kernel_size.isdigit():
        raise InputError(f"kernel_size must be an odd number or 'auto', got {kernel_size!r}.")
    size: Any = "auto" if kernel_size == "auto" else int(kernel_size)
    options: dict[str, Any] = {
        "method": method,
        "padding": padding,
        "ridge": ridge,
        "involution": involution,
        "validation_split": validation_split,
        "eval_batch_size": eval_batch_size,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    FitOptions(size, **options)
    claim_folder(output_dir)
    fitted = equivae.fit_latent_op(
        _load(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        names[0],
        source,
        size,
        name=name,
        resolution=resolution,
        max_samples=max_samples,
        max_train_steps=max_train_steps,
        learning_rate=learning_rate,
        width=width,
        **options,
    )
    fitted.save(output_dir)
    if fitted.report is not None:
        console.print(Markdown(fitted.report.to_markdown()))
    console.print(f"Written to [bold]{escape(str(output_dir))}[/].")


@app.command()
def export(
    pretrained_model_name_or_path: Model,
    output_file: Annotated[Path, _opt("output_file", "A new .safetensors file.")],
    dtype: Annotated[
        Optional[str], _opt("dtype", "fp16, bf16 or fp32; by default as the weights are loaded.")
    ] = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
) -> None:
    """Write a VAE as the single LDM-style file that ComfyUI, A1111 and kohya's trainers read."""
    vae = _load(
        pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
    )
    path = equivae.export_single_file(vae, output_file, dtype=dtype)
    console.print(f"Written to [bold]{escape(str(path))}[/].")


app.command("flip-cache")(flip_cache)


@app.command()
def transforms() -> None:
    """List the transforms, and the groups of them."""
    table = Table("name", "group", "kind", "parameters", "from", title="Transforms")
    for row in transform_table():
        table.add_row(row.name, row.group, row.kind, escape(row.parameters), escape(row.source))
    console.print(table)
    groups = Table("name", "elements", title="Groups")
    for name in equivae.list_groups():
        groups.add_row(name, ", ".join(t.name for t in equivae.get_group(name)))
    console.print(groups)


@app.command()
def recipes() -> None:
    """List the recipes: named sets of options for `equivae finetune`."""
    table = Table("name", "what it does", "source", "options", show_lines=True)
    for recipe in RECIPES.values():
        options = " ".join(f"{key}={value}" for key, value in recipe.options.items())
        table.add_row(recipe.name, recipe.summary, recipe.source, options or "the defaults")
    console.print(table)


def _load(
    name: str,
    subfolder: str | None,
    variant: str | None,
    revision: str | None,
    config: str | None,
) -> Any:
    options = {"subfolder": subfolder, "variant": variant, "revision": revision, "config": config}
    vae = equivae.load_vae(name, **{k: v for k, v in options.items() if v is not None})
    return vae.to(process_state().device)


def _show(report: equivae.Report, folder: Path | None) -> None:
    if report.before is None:
        table = Table("metric", "value")
        for label, _, now in report.rows():
            table.add_row(label, now)
    else:
        table = Table("metric", "before", "after")
        for row in report.rows():
            table.add_row(*row)
    console.print(table)
    _conclude(report.verdict, report.skipped, folder)


def _conclude(verdict: str, skipped: list[tuple[str, str]], folder: Path | None) -> None:
    console.print(escape(verdict))
    for name, reason in skipped:
        console.print(f"[yellow]skipped[/] {escape(name)}: {escape(reason)}")
    if folder is not None:
        console.print(f"Written to [bold]{escape(str(folder))}[/]: ", end="")
        console.print(", ".join(sorted(p.name for p in folder.iterdir() if p.is_file())))


if __name__ == "__main__":
    main()

"""A mkdocs hook: tables that are made from the code and from benchmarks/results when the site is built.

A page says `<!-- generated: recipes -->` where the table goes; see `GENERATORS` for the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from string import Template
from typing import Any

import typer.main
import yaml
from typer.core import TyperCommand

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
_MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put every table where its marker stands; `KeyError` for an unknown name."""
    return _MARKER.sub(lambda found: GENERATORS[found[1]](), markdown)


def recipes() -> str:
    """The recipes; how each differs from its source and which options it sets, to be folded out."""
    from equivae.training import RECIPES

    rows = [(f"`{one.name}`", one.summary, one.source) for one in RECIPES.values()]
    folded = []
    for one in RECIPES.values():
        transforms = {"transforms": one.transforms} if one.transforms else {}
        text = yaml.safe_dump({**transforms, **one.options}, sort_keys=False, width=80)
        sets = ["```yaml", *text.splitlines(), "```"] if text != "{}\n" else ["It sets nothing."]
        lines = [*([one.differs, ""] if one.differs else []), *sets]
        folded += [
            f'??? abstract "{one.name}"',
            "",
            *(f"    {line}".rstrip() for line in lines),
            "",
        ]
    return "\n".join([_table(("recipe", "what it does", "from"), rows), "", *folded])


def options() -> str:
    """Every option of a fine-tune."""
    from equivae.training import FinetuneConfig

    rows = [
        (f"`{option.name}`", f"`{option.default!r}`", str(option.metadata["help"]))
        for option in fields(FinetuneConfig)
    ]
    return _table(("option", "default", "meaning"), rows)


def commands() -> str:
    """Every command of the command line with its options."""
    from equivae.cli import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, command) for name, command in group.commands.items())


def _command(name: str, command: TyperCommand) -> str:
    lines = [f"## equivae {name}", "", str(command.help)]
    rows = []
    for option in command.params:
        if option.name == "help":
            continue
        flags = "<br>".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
        rows.append((flags, _default(option), getattr(option, "help", "")))
    if rows:
        lines += ["", _table(("option", "default", "meaning"), rows)]
    return "\n".join(lines)


def _default(option: Any) -> str:
    if option.required:
        return "**required**"
    shown = getattr(option, "show_default", None)
    value = shown if isinstance(shown, str) else option.default
    return "" if value is None else f"`{value}`"


def latent_metrics() -> str:
    """The numbers of the latent space: what each is, whose, its direction, and when it is taken."""
    from equivae.evaluation.latent_metrics import LATENT_METRICS

    rows = [
        (
            f"`{one.name}`",
            f"{one.label}: {one.formula}" + (f", in {one.unit}" if one.unit else ""),
            one.source,
            one.direction,
            f"`{one.level}`",
        )
        for one in LATENT_METRICS.values()
    ]
    return _table(("number", "what it is", "source", "direction", "from"), rows)


def groups() -> str:
    """The groups of transforms and their elements."""
    import equivae

    rows = [
        (f"`{name}`", ", ".join(f"`{t.name}`" for t in equivae.get_group(name)))
        for name in equivae.list_groups()
    ]
    return _table(("group", "elements"), rows)


def compare() -> str:
    """The home page's slider: a turned latent decoded before, and after each of the demo's ways."""
    untouched, *others = _result("demo")["choices"]
    choices = [one for one in others if one["folder"]]  # re-encoding makes nothing
    ways = []
    for place, one in enumerate(choices):
        name, number = one["name"], _db(one["round_trip_psnr"])
        picture = f"images/compare-{one['folder']}.jpg"
        checked = " checked" if place == 0 else ""
        ways.append(
            f'<label><input type="radio" name="compare-after" value="{picture}"{checked}>'
            f"<span>{name}</span><small>{number}, {one['seconds']:.0f} s</small></label>"
        )
    template = Template((Path(__file__).parent / "compare.html").read_text(encoding="utf-8"))
    return template.substitute(
        picture=f"images/compare-{choices[0]['folder']}.jpg",
        name=choices[0]["name"],
        ways="\n".join(ways),
        before=_db(untouched["round_trip_psnr"]),
        ceiling=_db(untouched["reconstruction_psnr"]),
    ).rstrip()


def taef2() -> str:
    """What each way gives on TAEF2 for rot180."""
    content = _result("sotemix_rot180_taef2")
    untouched, arms = content["untouched"], content["arms"]

    def row(name: str, arm: str, place: int) -> tuple[str, ...]:
        if arm not in arms:
            raise KeyError(f"run benchmarks/sotemix_rot180.py --arms {arm}")
        point = arms[arm]["curve"][place]
        numbers = (point["reconstruction_psnr"], point["round_trip_psnr"])
        return (name, *map(_db, numbers), f"{point['seconds']:.0f}")

    numbers = (untouched["reconstruction_psnr"], untouched["round_trip_psnr"])
    return _table(
        ("rot180", "reconstruction", "round trip", "seconds on one core"),
        [
            ("untouched, plain latent op", *map(_db, numbers), ""),
            row("`fit_latent_op`", "fitted", 0),
            row("`fit_latent_op`, then `finetune`", "fitted", -1),
            row("`symmetrize`", "symmetrized", 0),
            row("`symmetrize`, then `finetune`", "symmetrized", -1),
            row("`finetune`, all weights, plain latent op", "plain", -1),
            row("the published loop", "published", -1),
        ],
    )


def vae_cost() -> str:
    """What a training step costs on the VAE of Stable Diffusion 1.5 and SDXL."""
    measured = _result("vae_cost")["rows"]
    rows = []
    for row in measured:
        if row["vae"] != measured[0]["vae"]:
            continue
        rows.append(
            (
                f"{row['resolution']}",
                row["train"],
                f"{row['tflop_per_image']:.1f}",
                f"{row['state_gb']:.1f}",
                f"{row['activations_gb_per_image']:.1f}",
                f"{row['checkpointed_gb_per_image']:.1f}",
            )
        )
    return _table(
        (
            "resolution",
            "`train`",
            "TFLOP per image",
            "weights and optimiser, GB",
            "activations per image, GB",
            "the same with `gradient_checkpointing`",
        ),
        rows,
    )


def demo_frontier() -> str:
    """What the demo's settings give."""
    trials = _result("demo_frontier")["trials"]
    shipped = trials["as it ships"]["options"]
    own = f"weight {shipped['weight']:g}, {shipped['max_train_steps']} steps"
    labels = {"as it ships": f"as the demo ships: {own}"}
    rows = [
        (
            labels.get(name, name),
            _db(trial["gap_after_db"]),
            _db(trial["reconstruction_change_db"]),
            f"{trial['seconds']:.0f}",
        )
        for name, trial in trials.items()
    ]
    return _table(("setting", "gap after", "reconstruction", "seconds"), rows)


def import_time() -> str:
    """What the first use of each part costs."""
    found = _result("import_time")
    rows = [
        (f"`{name.replace('_', ' ')}`", f"{found['seconds'][name]:.2f}", f"{ratio:.2f}x")
        for name, ratio in found["ratio_to_torch"].items()
    ]
    return _table(("what", "seconds", "beside torch"), rows)


GENERATORS: dict[str, Callable[[], str]] = {
    "recipes": recipes,
    "options": options,
    "commands": commands,
    "groups": groups,
    "latent-metrics": latent_metrics,
    "compare": compare,
    "taef2": taef2,
    "vae-cost": vae_cost,
    "demo-frontier": demo_frontier,
    "import-time": import_time,
}


def _result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _db(value: float) -> str:
    return f"{value:.2f} dB"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )

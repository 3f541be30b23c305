"""Draw the node pack's workflow, `examples/comfyui/workflow.png`, from the nodes' own descriptions.

python docs/tools/comfyui_workflow.py
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

PACK = Path(__file__).parents[2] / "examples" / "comfyui"
INK, PAGE, NODE, HEAD, OURS = "#e8e8e8", "#202020", "#353535", "#454545", "#2f4f6f"
WIRES = {"LATENT": "#ff9cf9", "IMAGE": "#64b5f6", "VAE": "#ff6e6e", "EQUIVAE_LATENT_OP": "#ffd166"}
WIRES["STRING"] = "#8ac926"
ROW, WIDTH = 0.34, 2.5


@dataclass(frozen=True)
class Shown:
    """A node in the picture: its place, and its sockets and widgets from top to bottom."""

    title: str
    x: float
    y: float
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    widgets: tuple[str, ...] = ()
    ours: bool = True
    optional: frozenset[str] = frozenset()

    def socket(self, name: str, output: bool) -> tuple[float, float, str]:
        """Where a socket is, and the type of its wire."""
        sockets = self.outputs if output else self.inputs
        row = next(i for i, (known, _) in enumerate(sockets) if known == name)
        kind = dict(sockets)[name]
        return self.x + WIDTH * output, self.y - ROW * (row + 1.3), kind

    @property
    def height(self) -> float:
        return ROW * (max(len(self.inputs), len(self.outputs)) + len(self.widgets) + 1.7)


def pack() -> ModuleType:
    """The node pack, as ComfyUI loads it."""
    spec = importlib.util.spec_from_file_location("comfyui_pack_drawn", PACK / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_pack_drawn"] = module
    spec.loader.exec_module(module)
    return module


def ours(title: str, x: float, y: float, **values: str) -> Shown:
    """One of the pack's nodes, its sockets and widgets as it describes them."""
    node = next(node for node in pack().NODES if node.title == title)
    sockets = tuple(
        (one.id, one.kind) for one in node.inputs if one.kind in WIRES and one.kind != "STRING"
    )
    wired = {name for name, _ in sockets}
    widgets = tuple(
        f"{one.id}: {values.get(one.id, one.default)}"
        for one in node.inputs
        if one.id not in wired and one.id in values
    )
    outputs = tuple((one.name, one.kind) for one in node.outputs)
    optional = frozenset(one.id for one in node.inputs if one.optional)
    return Shown(title, x, y, sockets, outputs, widgets, optional=optional)


def theirs(
    title: str, x: float, y: float, inputs: str = "", outputs: str = "", widget: str = ""
) -> Shown:
    """One of ComfyUI's own: sockets as `name:TYPE` words."""
    split = [tuple(tuple(word.split(":")) for word in words.split()) for words in (inputs, outputs)]
    return Shown(title, x, y, split[0], split[1], (widget,) if widget else (), ours=False)  # type: ignore[arg-type]


def draw(axes: Axes, node: Shown) -> None:
    style = "round,pad=0,rounding_size=0.09"
    colour = OURS if node.ours else HEAD
    for y, height, fill in (
        (node.y - node.height, node.height, NODE),
        (node.y - ROW * 0.8, ROW * 0.8, colour),
    ):
        axes.add_patch(
            FancyBboxPatch((node.x, y), WIDTH, height, style, fc=fill, ec="#111111", zorder=2)
        )
    axes.text(
        node.x + 0.12,
        node.y - ROW * 0.42,
        node.title,
        color=INK,
        va="center",
        weight="bold",
        zorder=4,
    )
    for output in (False, True):
        for name, _ in node.outputs if output else node.inputs:
            x, y, kind = node.socket(name, output)
            hollow = not output and name in node.optional
            axes.plot(
                x, y, "o", color=WIRES[kind], mfc=PAGE if hollow else WIRES[kind], ms=7, zorder=5
            )
            aside = -0.14 if output else 0.14
            side = "right" if output else "left"
            axes.text(x + aside, y, name, color=INK, va="center", ha=side, fontsize=9, zorder=4)
    below = max(len(node.inputs), len(node.outputs))
    for i, words in enumerate(node.widgets):
        y = node.y - ROW * (below + i + 1.35)
        box = (node.x + 0.1, y - ROW * 0.36)
        axes.add_patch(
            FancyBboxPatch(
                box, WIDTH - 0.2, ROW * 0.72, style, fc="#222222", ec="#555555", zorder=3
            )
        )
        axes.text(node.x + 0.22, y, words, color=INK, va="center", fontsize=8.5, zorder=4)


def wire(axes: Axes, start: tuple[Shown, str], end: tuple[Shown, str]) -> None:
    x0, y0, kind = start[0].socket(start[1], True)
    x1, y1, other = end[0].socket(end[1], False)
    assert kind == other, f"{start[1]} is {kind}, {end[1]} is {other}"
    reach = max(0.5, abs(x1 - x0) / 2)
    steps = [i / 40 for i in range(41)]
    xs = [
        (1 - t) ** 3 * x0
        + 3 * (1 - t) ** 2 * t * (x0 + reach)
        + 3 * (1 - t) * t**2 * (x1 - reach)
        + t**3 * x1
        for t in steps
    ]
    ys = [(1 - t) ** 2 * (1 + 2 * t) * y0 + t**2 * (3 - 2 * t) * y1 for t in steps]
    axes.plot(xs, ys, color=WIRES[kind], lw=2.2, zorder=1)


def main() -> None:
    vae = theirs("Load VAE", 0, 6.2, outputs="VAE:VAE", widget="sdxl_vae.safetensors")
    photos = theirs("Batch Images", 0, 4.6, outputs="IMAGE:IMAGE", widget="16 of your images")
    sampler = theirs("KSampler", 0, 3.1, outputs="LATENT:LATENT", widget="…")
    fit = ours("Fit Latent Op", 3.5, 5.6, transform="hflip", kernel_size="5", save_as="sdxl-hflip")
    apply = ours("Apply Latent Op", 7.0, 3.5, inverse="false")
    report = ours("Latent Round-Trip Report", 7.0, 6.4)
    decode = theirs("VAE Decode", 10.5, 3.1, "samples:LATENT vae:VAE", "IMAGE:IMAGE")
    show = theirs("Preview Image", 10.5, 6.2, "images:IMAGE", widget="moved, plain, op, encoded")
    save = theirs("Save Image", 10.5, 1.2, "images:IMAGE", widget="flipped")
    load = ours("Load Latent Op", 3.5, 1.9, name="sdxl-hflip")
    figure, axes = plt.subplots(figsize=(13.6, 7.2), facecolor=PAGE)
    nodes = (vae, photos, sampler, fit, apply, report, decode, show, save, load)
    for node in nodes:
        draw(axes, node)
    for start, end in (
        ((vae, "VAE"), (fit, "vae")),
        ((vae, "VAE"), (report, "vae")),
        ((vae, "VAE"), (apply, "vae")),
        ((vae, "VAE"), (decode, "vae")),
        ((photos, "IMAGE"), (fit, "images")),
        ((photos, "IMAGE"), (report, "images")),
        ((fit, "latent_op"), (apply, "latent_op")),
        ((fit, "latent_op"), (report, "latent_op")),
        ((sampler, "LATENT"), (apply, "samples")),
        ((apply, "samples"), (decode, "samples")),
        ((report, "comparison"), (show, "images")),
        ((decode, "IMAGE"), (save, "images")),
    ):
        wire(axes, start, end)
    axes.text(4.75, 0.5, "next time, instead of fitting", color="#aaaaaa", ha="center", fontsize=9)
    axes.set(xlim=(-0.3, 13.3), ylim=(-0.1, 6.7))
    axes.set_aspect("equal")
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(PACK / "workflow.png", dpi=80, facecolor=PAGE)


if __name__ == "__main__":
    main()

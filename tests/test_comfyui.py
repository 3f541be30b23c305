"""The ComfyUI node pack: its nodes' functions without ComfyUI, and what it tells ComfyUI of them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import comfy_stub
import equivae
from cache_files import an_op, latents
from equivae.operators import ConvOperator, FittedTransform, ResidualOperator

PACK = Path(__file__).parents[1] / "examples" / "comfyui"


def load(name: str) -> ModuleType:
    """As ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pack() -> Iterator[dict[str, Any]]:
    """The nodes' functions by their titles."""
    name = "comfyui_pack"
    module = load(name)
    yield {node.title: node.run for node in module.NODES}
    for known in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[known]


class Vae:
    """A VAE as ComfyUI has it: images `(B, H, W, C)` in [0, 1], cropped to whole cells; unscaled latents."""

    downscale_ratio = 8

    def __init__(self) -> None:
        self.view = equivae.Autoencoder(equivae.zoo.load())

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        for axis in (1, 2):
            whole = pixels.shape[axis] // 8 * 8
            pixels = pixels.narrow(axis, pixels.shape[axis] % 8 // 2, whole)
        return pixels

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        return self.view.encode(self.vae_encode_crop_pixels(pixels).movedim(-1, 1) * 2 - 1)

    @torch.no_grad()
    def decode(self, samples: Tensor) -> Tensor:
        return self.view.decode(samples).add(1).div(2).clamp(0, 1).movedim(1, -1)

    def encode_tiled(self, pixels: Tensor, tile_x: int = 64) -> Tensor:
        return self.encode(pixels)

    def decode_tiled(self, samples: Tensor, tile_x: int = 64) -> Tensor:
        return self.decode(samples)


@pytest.fixture(scope="module")
def vae() -> Vae:
    return Vae()


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Eight images `(8, 48, 64, 3)`, not square."""
    found = equivae.data.dead_leaves(8, size=64, seed=3)[:, :, :48]
    return found.add(1).div(2).movedim(1, -1)


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    return torch.allclose(a.float(), b.float(), atol=atol)


# Load and apply -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", ["hflip", "vflip", "rot90", "rot270", "rot180", "transpose"])
def test_what_equivae_saves_is_applied_alike(
    move: str, pack: dict[str, Any], tmp_path: Path
) -> None:
    base = an_op(move)
    op = FittedTransform(base.base, base.operator, an_op(seed=4).operator)
    op.save(tmp_path / "op")
    (loaded,) = pack["Load Latent Op"]("(none)", str(tmp_path / "op"))
    z = latents(2, 4, 6, 9)
    (moved,) = pack["Apply Latent Op"]({"samples": z}, loaded)
    assert close(moved["samples"], op.latent(z))
    (back,) = pack["Apply Latent Op"]({"samples": z}, loaded, inverse=True)
    assert close(back["samples"], op.inverse.latent(z))


def test_products_networks_and_paddings(pack: dict[str, Any], tmp_path: Path) -> None:
    operator = ResidualOperator(ConvOperator(4, 3, "replicate"), width=6)
    generator = torch.Generator().manual_seed(0)
    for parameter in operator.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    base = equivae.get_transform("rot90") @ equivae.get_transform("vflip")
    op = FittedTransform(base, operator)
    op.save(tmp_path / "op")
    (loaded,) = pack["Load Latent Op"]("", str(tmp_path / "op" / "latent_op.safetensors"))
    z = latents(1, 4, 5, 7)
    (moved,) = pack["Apply Latent Op"]({"samples": z}, loaded)
    assert close(moved["samples"], op.latent(z), atol=1e-4)
    with pytest.raises(ValueError, match="without its inverse"):
        pack["Apply Latent Op"]({"samples": z}, loaded, inverse=True)


def test_the_one_file_that_equivae_will_write(pack: dict[str, Any], tmp_path: Path) -> None:
    """Version 2: a JSON header in the metadata, with the move, and kernels over ones and over |z|."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"weight": (4, 4, 3, 3), "bias": (4,), "border_weight": (4, 1, 3, 3)}
    sizes["magnitude_weight"] = (4, 4, 1, 1)
    tensors = {
        f"forward_operator.{name}": torch.randn(size, generator=generator)
        for name, size in sizes.items()
    }
    settings = {"kind": "conv", "channels": 4, "kernel_size": 3, "padding": "zeros"}
    header = {
        "version": 2,
        "name": "turned",
        "transform": "some_plugin",
        "move": {"transposes": True, "flips_height": True, "flips_width": False},
        "inverse": "none",
        "operators": {"forward_operator": {**settings, "border": True, "magnitude": 1}},
    }
    path = tmp_path / "latent_op.safetensors"
    save_file(tensors, path, {"format": "latent_op", "equivae": json.dumps(header)})
    (op,) = pack["Load Latent Op"]("", str(path))
    assert op.name == "rot90"
    z = latents(2, 4, 5, 7)
    turned = z.rot90(1, (-2, -1))
    w = {name.removeprefix("forward_operator."): value for name, value in tensors.items()}
    ones = torch.ones(2, 1, 7, 5)
    expected = (
        F.conv2d(turned, w["weight"], w["bias"], padding=1)
        + F.conv2d(ones, w["border_weight"], padding=1)
        + F.conv2d(turned.abs(), w["magnitude_weight"])
    )
    assert close(pack["Apply Latent Op"]({"samples": z}, op)[0]["samples"], expected, atol=1e-3)
    header["operators"]["forward_operator"]["kind"] = "phases"  # type: ignore[index]
    save_file(tensors, path, {"format": "latent_op", "equivae": json.dumps(header)})
    with pytest.raises(ValueError, match="fit one with the node"):
        pack["Load Latent Op"]("", str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents_keep_their_dtype(
    dtype: torch.dtype, pack: dict[str, Any], tmp_path: Path
) -> None:
    an_op().save(tmp_path / "op")
    (op,) = pack["Load Latent Op"]("", str(tmp_path / "op"))
    z = latents(2, 4, 6, 6, std=1.0).to(dtype)
    (moved,) = pack["Apply Latent Op"]({"samples": z}, op)
    assert moved["samples"].dtype == dtype
    assert close(moved["samples"], an_op().latent(z.float()), atol=0.05)


def test_masks_video_and_the_rest_go_along(pack: dict[str, Any], tmp_path: Path) -> None:
    an_op("rot90").save(tmp_path / "op")
    (op,) = pack["Load Latent Op"]("", str(tmp_path / "op"))
    video, mask = latents(2, 4, 3, 6, 8), torch.rand(2, 1, 48, 64)
    given = {"samples": video, "noise_mask": mask, "batch_index": [3, 4]}
    (moved,) = pack["Apply Latent Op"](given, op)
    for t in range(3):
        assert close(moved["samples"][:, :, t], an_op("rot90").latent(video[:, :, t]))
    assert moved["noise_mask"].equal(mask.rot90(1, (-2, -1)))
    assert moved["batch_index"] == [3, 4]
    assert given["samples"] is video
    flat = {"samples": video[:, :, 0], "noise_mask": mask[:, 0]}
    assert pack["Apply Latent Op"](flat, op)[0]["noise_mask"].equal(mask[:, 0].rot90(1, (-2, -1)))


def test_comfyuis_own_rotation_is_the_other_way_round() -> None:
    z = latents(1, 4, 3, 5)
    ninety_degrees = torch.rot90(z, k=1, dims=[3, 2])  # what its Rotate Latent does
    assert ninety_degrees.equal(equivae.get_transform("rot270").latent(z))


def test_what_cannot_be_applied_is_said(pack: dict[str, Any], tmp_path: Path) -> None:
    an_op().save(tmp_path / "op")
    (op,) = pack["Load Latent Op"]("", str(tmp_path / "op"))
    with pytest.raises(ValueError, match="for 4 channels and the latent has 16"):
        pack["Apply Latent Op"]({"samples": latents(1, 16, 4, 4)}, op)
    with pytest.raises(ValueError, match=r"got .4, 4, 4."):
        pack["Apply Latent Op"]({"samples": latents(4, 4, 4)}, op)
    with pytest.raises(ValueError, match="no name for a latent op"):
        pack["Load Latent Op"]("../../secrets")
    with pytest.raises(ValueError, match="holds no latent op"):
        pack["Load Latent Op"]("", str(tmp_path))
    path = tmp_path / "op" / "latent_op.safetensors"
    tensors = load_file(path)
    for change, match in (
        ({"transform": "shift(y=2)", "move": None}, "these nodes cannot apply"),
        ({"version": 7}, "update these nodes"),
    ):
        header = json.dumps(an_op().header() | change)
        save_file(tensors, path, {"format": "latent_op", "equivae": header})
        with pytest.raises(ValueError, match=match):
            pack["Load Latent Op"]("", str(tmp_path / "op"))
    settings = {"kind": "conv", "channels": 4, "kernel_size": 3, "padding": "zeros"}
    known = {
        "schema": 1,
        "transform": "hflip",
        "operators": {"forward_operator": settings},
        "inverse": "none",
    }
    for change, match in (
        ({"transform": "shift(y=2)"}, "these nodes cannot apply"),
        ({"schema": 7}, "update these nodes"),
    ):
        old = tmp_path / "old"  # as version 0.1 wrote it
        old.mkdir(exist_ok=True)
        weights = {"weight": torch.zeros(4, 4, 3, 3), "bias": torch.zeros(4)}
        save_file(
            {f"forward_operator.{n}": w for n, w in weights.items()}, old / "latent_op.safetensors"
        )
        (old / "latent_op.json").write_text(json.dumps(known | change))
        with pytest.raises(ValueError, match=match):
            pack["Load Latent Op"]("", str(old))


class Louder(Vae):
    """Another VAE: twice the latents."""

    def encode(self, pixels: Tensor) -> Tensor:
        return super().encode(pixels) * 2


def test_an_op_of_another_vae_is_refused_by_its_fingerprint(
    pack: dict[str, Any],
    vae: Vae,
    photos: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted, _ = pack["Fit Latent Op"](vae, photos[:6], "hflip", kernel_size=3, save_as="flip")
    theirs = equivae.load_latent_op(tmp_path / "latent_ops" / "flip")
    theirs.check_vae(vae.view, strict=True)  # equivae knows it again
    z = {"samples": vae.encode(photos[:1])}
    for op in (fitted, pack["Load Latent Op"]("flip")[0]):
        assert pack["Apply Latent Op"](z, op, vae=vae)[0]["samples"].shape == z["samples"].shape
        for call in (
            lambda op=op: pack["Apply Latent Op"](z, op, vae=Louder()),
            lambda op=op: pack["Symmetrize VAE"](Louder(), op),
            lambda op=op: pack["Latent Round-Trip Report"](Louder(), photos[:1], op),
        ):
            with pytest.raises(ValueError, match="fitted for another VAE"):
                call()
    assert not caplog.records
    pack["Apply Latent Op"]({"samples": z["samples"] * 9}, fitted)
    assert "root mean square" in caplog.text
    caplog.clear()
    pack["Apply Latent Op"]({"samples": z["samples"] * 0}, fitted)  # an empty latent
    assert not caplog.records


# Fit, report, symmetrize ----------------------------------------------------------------------------------


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a.clamp(0, 1) - b).square().mean()))


@pytest.mark.parametrize(
    ("name", "gain"),
    [("hflip", 3.0), ("rot90", 3.0), ("scale 0.5", 0.5), ("scale 2", 1.0), ("brightness", 3.0)],
)
def test_a_fitted_op_decodes_better_than_the_plain_one(
    name: str, gain: float, pack: dict[str, Any], vae: Vae, photos: Tensor
) -> None:
    op, text = pack["Fit Latent Op"](vae, photos[:6], name, kernel_size=3)
    assert "relative error of held-out latents" in text
    report, strip = pack["Latent Round-Trip Report"](vae, photos[6:], op)
    found = dict(line.rsplit(": ", 1) for line in report.splitlines()[2:])
    assert float(found["latent op"]) > float(found["plain latent op"]) + gain
    assert strip.shape[0] == 1
    assert strip.shape[2] % 4 == 0


def test_the_fit_is_equivaes(
    pack: dict[str, Any], vae: Vae, photos: Tensor, tmp_path: Path
) -> None:
    """The same least squares on the same images, apart from the ridge that each chooses."""
    op, _ = pack["Fit Latent Op"](vae, photos, "rot90", kernel_size=3)
    images = photos.movedim(-1, 1) * 2 - 1
    theirs = equivae.fit_latent_op(vae.view.module, "rot90", images, kernel_size=3, progress=False)
    z = vae.encode(photos[:2])
    (ours,) = pack["Apply Latent Op"]({"samples": z}, op)
    difference = (ours["samples"] - theirs.latent(z)).norm() / theirs.latent(z).norm()
    assert float(difference) < 0.05


def test_a_fit_is_saved_for_comfyui_and_for_equivae(
    pack: dict[str, Any], vae: Vae, photos: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    op, _ = pack["Fit Latent Op"](vae, photos, "rot90", kernel_size=3, save_as="turn")
    (again,) = pack["Load Latent Op"]("turn")
    z = vae.encode(photos[:1])
    (moved,) = pack["Apply Latent Op"]({"samples": z}, again)
    assert moved["samples"].equal(pack["Apply Latent Op"]({"samples": z}, op)[0]["samples"])
    loaded = equivae.load_latent_op(tmp_path / "latent_ops" / "turn")
    assert close(loaded.latent(z), moved["samples"])
    assert close(
        loaded.inverse.latent(z), pack["Apply Latent Op"]({"samples": z}, again, True)[0]["samples"]
    )
    with pytest.raises(ValueError, match="no name"):
        pack["Fit Latent Op"](vae, photos, "rot90", save_as="../turn")


class Exact(Vae):
    """Its latents are averages: the plain latent op is right, so that no fit can be better."""

    def encode(self, pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels.movedim(-1, 1), 8)


def test_a_fit_that_loses_is_not_returned(pack: dict[str, Any], photos: Tensor) -> None:
    op, text = pack["Fit Latent Op"](Exact(), photos, "hflip", kernel_size=3)
    assert op.kernel is None
    assert "no better" in text
    nothing = Exact()
    nothing.encode = lambda pixels: torch.full((1, 4, 6, 8), float("nan"))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not finite"):
        pack["Fit Latent Op"](nothing, photos, "hflip")
    with pytest.raises(ValueError, match="two images or more"):
        pack["Fit Latent Op"](Exact(), photos[:1], "hflip")
    with pytest.raises(ValueError, match="odd"):
        pack["Fit Latent Op"](Exact(), photos, "hflip", kernel_size=4)


@pytest.mark.parametrize(
    ("name", "size"), [("hflip", (40, 56)), ("rot180", (56, 40)), ("vflip", (41, 51))]
)
def test_a_symmetrized_vae_is_exactly_equivariant(
    name: str, size: tuple[int, int], pack: dict[str, Any], vae: Vae, photos: Tensor
) -> None:
    op, _ = pack["Fit Latent Op"](vae, photos, name, kernel_size=3)
    (svae,) = pack["Symmetrize VAE"](vae, op, seam=16)
    move = equivae.get_transform(name)
    image = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    cropped = vae.vae_encode_crop_pixels(image)

    def flip(x: Tensor) -> Tensor:
        return move.pixel(x.movedim(-1, 1)).movedim(1, -1)

    z = svae.encode(cropped)
    assert close(svae.encode(flip(cropped)), move.latent(z))
    assert close(svae.decode(move.latent(z)), flip(svae.decode(z)))
    assert close(svae.encode(image), z)
    assert close(svae.decode_tiled(z, tile_x=32), svae.decode(z))
    assert close(svae.encode_tiled(image, tile_x=32), z)
    assert svae.downscale_ratio == 8
    with pytest.raises(AttributeError):
        _ = svae.nothing


def test_a_symmetrized_vae_reconstructs(pack: dict[str, Any], vae: Vae, photos: Tensor) -> None:
    op, _ = pack["Fit Latent Op"](vae, photos[:6], "hflip", kernel_size=5)
    (svae,) = pack["Symmetrize VAE"](vae, op)
    images = photos[6:]
    plain = psnr(vae.decode(vae.encode(images)), images)
    assert psnr(svae.decode(svae.encode(images)), images) > plain - 1.5
    turn, _ = pack["Fit Latent Op"](vae, photos[:4], "rot90", kernel_size=1)
    with pytest.raises(ValueError, match="symmetrized under hflip, vflip, rot180"):
        pack["Symmetrize VAE"](vae, turn)


# What ComfyUI is told ---------------------------------------------------------------------------------------


def test_importing_the_pack_needs_torch_and_safetensors_alone() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('pack', {str(PACK / '__init__.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['pack'] = module\n"
        "spec.loader.exec_module(module)\n"
        "heavy = ('equivae', 'diffusers', 'datasets', 'kornia', 'accelerate', 'huggingface_hub', 'PIL')\n"
        "print([m for m in heavy if m in sys.modules], len(module.NODE_CLASS_MAPPINGS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[] 5", done.stderr


def test_the_old_api(pack: dict[str, Any]) -> None:
    module = sys.modules["comfyui_pack"]
    names = module.NODE_DISPLAY_NAME_MAPPINGS
    assert set(names.values()) == set(pack)
    for name, cls in module.NODE_CLASS_MAPPINGS.items():
        types = cls.INPUT_TYPES()
        assert set(types) == {"required", "optional"}
        assert callable(getattr(cls(), cls.FUNCTION))
        assert len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
        assert name.startswith("Equivae")
    apply = module.NODE_CLASS_MAPPINGS["EquivaeApplyLatentOp"]
    assert set(apply.INPUT_TYPES()["required"]) == {"samples", "latent_op", "inverse"}
    (op,) = (sys.modules["comfyui_pack.latent_op"].LatentOp("hflip"),)
    z = latents(1, 4, 4, 4)
    (moved,) = apply().run(samples={"samples": z}, latent_op=op, inverse=False)
    assert moved["samples"].equal(z.flip(-1))


def test_the_new_api(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("comfy_api", "comfy_api.latest"):
        monkeypatch.setitem(sys.modules, name, None)
    comfy_stub.install()
    name = "comfyui_pack_new"
    module = load(name)
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")  # ComfyUI would take it instead
    extension = asyncio.run(module.comfy_entrypoint())
    classes = asyncio.run(extension.get_node_list())
    schemas = {cls.define_schema().display_name: cls.define_schema() for cls in classes}
    assert list(schemas) == [
        "Load Latent Op",
        "Apply Latent Op",
        "Fit Latent Op",
        "Symmetrize VAE",
        "Latent Round-Trip Report",
    ]
    assert len({schema.node_id for schema in schemas.values()}) == 5
    for schema in schemas.values():
        ids = [one.id for one in (*schema.inputs, *schema.outputs)]
        assert all(ids)
        assert len({one.id for one in schema.inputs}) == len(schema.inputs)
        assert all(one.options["tooltip"] for one in schema.inputs)
        for one in schema.inputs:
            if one.kind == "COMBO":
                default = one.options.get("default")
                assert default is None or default in one.options["options"]
    kinds = [one.kind for one in schemas["Apply Latent Op"].inputs]
    assert kinds == ["LATENT", "EQUIVAE_LATENT_OP", "BOOLEAN", "VAE"]
    apply = next(cls for cls in classes if cls.__name__ == "EquivaeApplyLatentOp")
    op = sys.modules[f"{name}.latent_op"].LatentOp("vflip")
    z = latents(1, 4, 4, 4)
    assert apply.execute(samples={"samples": z}, latent_op=op).args[0]["samples"].equal(z.flip(-2))
    for known in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[known]


def test_the_registrys_metadata() -> None:
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads((PACK / "pyproject.toml").read_text())
    assert set(content["project"]["dependencies"]) == {"torch", "numpy", "safetensors"}
    assert {"PublisherId", "DisplayName"} <= set(content["tool"]["comfy"])

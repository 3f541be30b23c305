"""The symmetrized autoencoder: an autoencoder around another, exactly equivariant by construction."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError, did_you_mean
from equivae.operators import FittedTransform
from equivae.symmetry.domain import Domain, Method, domain_weights, lattice_group, softened
from equivae.symmetry.files import read_parts, write_parts
from equivae.symmetry.report import SymmetrizeReport
from equivae.transforms import Group, Transform

__all__ = ["SymmetrizedVAE", "load_symmetrized"]


class SymmetrizedVAE(ModelMixin):  # type: ignore[misc]
    r"""An autoencoder that is exactly equivariant under plain latent ops.

    With weights `m` on the latent grid, `Σ_g S_g m = 1` (see `domain_weights`),

    .. math:: E'(x) = \sum_g S_g (m \odot E(T_g^{-1} x))

    .. math:: D'(z) = \sum_g T_g (m \odot D(C(S_g^{-1} z)))

    so that `E'(T x) = S E'(x)` and `D'(S z) = T D'(z)` for every autoencoder `(E, D)`. With
    `m = 1` on a fundamental domain `F`, the part of the image over `gF` is encoded and decoded in the
    orientation that brings it to `F`, and nothing is averaged but the cells that an element fixes. The
    context map `C` keeps the cells of `F` and translates the others, which hold what the encoder says of
    another orientation, with fitted latent ops. With `m = 1 / |G|` this is averaging over the group.

    It has the calls of the autoencoder inside, and its attributes (`config`, `enable_tiling`, ...). It is a
    diffusers model, so that pipelines take it, save it and load it: `from_pretrained(folder, vae=svae)`, and
    after `import equivae.symmetry` `from_pretrained(folder)` of what the pipeline's `save_pretrained` wrote.

    Args:
        vae: the autoencoder inside; it is neither copied nor changed.
        group: a group of lattice transforms or its name.
        method: `"fundamental-domain"` or `"average"`.
        transforms: latent ops for the context by the names of the elements; plain latent ops without.
        margin: cells around the domain that are encoded and decoded with it; `None` takes all.
        passes: how often the context is translated; each pass carries it further across the borders.
        seam: pixels over which the decoded parts fade into one another, as far as the margin has room: the
            weights of the decoder are then ramps that still sum to one over the group, and the law stays
            exact. 0 for a hard edge; `None` lets everything that is decoded count, with a weight that falls
            to zero at the edges of the crops.

    Attributes:
        report: cost and effect on reconstruction, when `symmetrize` had images to measure them on.
    """

    report: SymmetrizeReport | None = None

    def __init__(
        self,
        vae: nn.Module,
        group: str | Group,
        method: Method = "fundamental-domain",
        transforms: Mapping[str, Transform] | None = None,
        margin: int | None = None,
        passes: int = 2,
        seam: int | None = 0,
    ) -> None:
        super().__init__()
        if method not in get_args(Method):
            known = get_args(Method)
            raise InputError(f"method={method!r} is unknown.{did_you_mean(str(method), known)}")
        if margin is not None and margin < 0:
            raise InputError(f"margin must not be negative, got {margin}.")
        if passes < 0:
            raise InputError(f"passes must not be negative, got {passes}.")
        if seam is not None and seam < 0:
            raise InputError(f"seam must not be negative, got {seam}.")
        self.group = lattice_group(group)
        self.method: Method = method
        self.margin, self.passes, self.seam = margin, passes, seam
        self.vae: Any = vae
        self.transforms = dict(transforms or {})
        missing = [
            e.name for e in self._others if self.transforms and e.name not in self.transforms
        ]
        if missing:
            raise InputError(
                f"transforms for the context lack {', '.join(missing)}; pass one for every element of "
                f"{self.group.name}, as fit_latent_group gives them."
            )
        # Registered here so that the operators move, save and train with the module.
        self.operators = nn.ModuleDict(
            {n: t.module for n, t in self.transforms.items() if isinstance(t, FittedTransform)}
        )
        self._view = Autoencoder(vae)

    @property
    def _others(self) -> list[Transform]:
        return [element for element in self.group if element.name != "identity"]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "vae":
                raise
            return getattr(self.vae, name)

    # The calls -----------------------------------------------------------------------------------

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """What the autoencoder inside returns for images or videos `(..., H, W)`: a posterior, or latents.

        A posterior is put together from its moments, cell by cell.
        """
        output, wrap = self._encode_parts(x)
        wrapped = wrap(output)
        if not return_dict and not isinstance(wrapped, Tensor):
            return (wrapped[0],)
        return wrapped

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        """Images of latents `(..., h, w)`, in an output as diffusers' autoencoders give it, or bare.

        A decoder that draws noise draws the same every time; `generator` is there for the signature.
        """
        domains = self._domains(z.shape[-2], z.shape[-1])
        fields = self._in_context(z)
        factor = self._view.factor
        images: Tensor | None = None
        for domain, elements in _by_shape(domains):
            crops = [
                fields[e.name][..., domain.top : domain.bottom, domain.left : domain.right]
                for e in elements
            ]
            decoded = self._view.decode(torch.cat(crops))
            pixels = self._pixels(domain, elements)
            for element, part in zip(elements, torch.split(decoded, len(z)), strict=True):
                placed = element.pixel(_place(part, domain, pixels, factor))
                images = placed if images is None else images + placed
        assert images is not None
        images = images.to(decoded.dtype)
        if not hasattr(self.vae, "config"):  # diffusers' autoencoders have one
            return images
        return DecoderOutput(sample=images) if return_dict else (images,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True
    ) -> Any:
        """Encode and decode."""
        latents = Autoencoder(self).encode(sample, sample=sample_posterior)
        return self.decode(latents, return_dict=return_dict)

    # What they are made of -----------------------------------------------------------------------

    def _encode_parts(self, x: Tensor) -> tuple[Tensor, Any]:
        factor = self._view.factor
        height, width = x.shape[-2:]
        if height % factor or width % factor:
            raise InputError(
                f"images of {height}x{width} pixels do not divide by the VAE's factor {factor}; crop or "
                "resize them."
            )
        domains = self._domains(height // factor, width // factor)
        total: Tensor | None = None
        wrap: Any = None
        for domain, elements in _by_shape(domains):
            rows = slice(domain.top * factor, domain.bottom * factor)
            columns = slice(domain.left * factor, domain.right * factor)
            crops = [element.inverse.pixel(x)[..., rows, columns] for element in elements]
            batch = torch.cat(crops)
            output = self.vae.encode(batch) if self._view.direct else self._view.encode(batch)
            cells, wrap = _unwrap_latent(output, self.vae)
            for element, part in zip(elements, torch.split(cells, len(x)), strict=True):
                placed = element.latent(_place(part, domain, domain.weights, 1))
                total = placed if total is None else total + placed
        assert total is not None
        return total.to(cells.dtype), wrap

    def _domains(self, height: int, width: int) -> dict[Transform, Domain]:
        """Per element that has something to do, the domain in its own orientation."""
        found = {}
        for element in self.group:
            weights = self._weights(element, height, width)
            if weights.any():
                found[element] = Domain.of(weights, self.margin)
        return found

    def _weights(self, element: Transform, height: int, width: int) -> Tensor:
        """The domain's weights on the grid that `element` maps onto one of so many cells."""
        shape = (width, height) if element.swaps_axes else (height, width)
        return domain_weights(self.group, *shape, self.method)

    def _in_context(self, z: Tensor) -> dict[str, Tensor]:
        """`C(S_g⁻¹ z)` for every element `g`.

        A cell of `kF` holds another orientation's words for its place; the latent op of `k`, applied to
        the whole field in that orientation, translates them. From the second pass on that field has its
        own surroundings translated already.
        """
        moved = {element.name: element.inverse.latent(z) for element in self.group}
        if self.method == "average" or not self.transforms:
            return moved
        fields = moved
        for _ in range(self.passes):
            following = {}
            for g in self.group:
                cells = moved[g.name]
                total = torch.zeros_like(cells)
                for k in self.group:
                    weights = k.latent(self._weights(k, *cells.shape[-2:]))
                    if not weights.any():
                        continue
                    if k.name == "identity":
                        seen = cells
                    else:
                        seen = self.transforms[k.name].latent(fields[(g @ k).name])
                    total = total + weights.to(cells) * seen
                following[g.name] = total
            fields = following
        return fields

    def _pixels(self, domain: Domain, elements: list[Transform]) -> Tensor:
        """The domain's weights on the pixel grid, with a ramp as wide as fits into the margin."""
        factor = self._view.factor
        if self.seam is None and self.method == "fundamental-domain":
            window = domain.window(factor, (self.margin or 0) * factor)
            total = torch.stack([element.pixel(window) for element in elements]).sum(0)
            return window / elements[0].inverse.pixel(total)
        pixels = domain.weights.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        if self.method == "average":
            return pixels
        room = max(pixels.shape) if self.margin is None else self.margin * factor
        return softened(pixels, min(self.seam or 0, 2 * room))

    def cost(self, height: int, width: int) -> float:
        """Cells encoded (and decoded) for an image of so many pixels, relative to the plain VAE's."""
        factor = self._view.factor
        height, width = height // factor, width // factor
        return sum(d.cells for d in self._domains(height, width).values()) / (height * width)

    # Files ---------------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | Path, safe_serialization: bool = True, **options: Any
    ) -> None:
        """Write `symmetrize.json`, the VAE (in `wrapped/`) and the latent ops into a folder.

        Args:
            folder: where to; a pipeline's `save_pretrained` makes it the pipeline's `vae`.
            safe_serialization: only `True`, since only safetensors are written.
            options: what pipelines pass to their models; without effect.
        """
        if not safe_serialization:
            raise InputError("only safetensors are written; leave safe_serialization=True.")
        settings = {
            "group": self.group.name,
            "elements": [element.name for element in self.group],
            "method": self.method,
            "margin": self.margin,
            "passes": self.passes,
            "seam": self.seam,
        }
        write_parts(Path(folder), self.vae, self.transforms, settings)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        vae: nn.Module | None = None,
        *,
        subfolder: str | None = None,
        torch_dtype: torch.dtype | None = None,
        device_map: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> SymmetrizedVAE:
        """What `save_pretrained` wrote.

        Args:
            folder: where it lies.
            vae: for an autoencoder that is no diffusers class, a module of that class; it gets the weights.
            subfolder: of the folder, such as `"vae"` in that of a pipeline.
            torch_dtype: of the weights; that of the file by default.
            device_map: as pipelines pass it, `{"": device}` for one device.
            options: what pipelines pass to their models besides; without effect, but for `dtype`, the newer
                name of `torch_dtype`.

        Raises `InputError` when the folder holds none, and for a map of several devices.
        """
        inside, group, context, content = read_parts(Path(folder) / (subfolder or ""), vae)
        if device_map is not None and set(device_map) != {""}:
            raise InputError(
                f"a symmetrized VAE lies on one device, got device_map={dict(device_map)}; leave it out."
            )
        made = cls(
            inside,
            group,
            content["method"],
            context,
            content["margin"],
            content["passes"],
            content.get("seam", 0),
        )
        made.training = inside.training
        made.operators.train(inside.training)
        made.to((device_map or {}).get(""), options.get("dtype", torch_dtype))
        return made


# What ModelMixin would do to its own parts is asked of the autoencoder inside, if it can do it.
for _name in (
    "enable_gradient_checkpointing",
    "disable_gradient_checkpointing",
    "enable_xformers_memory_efficient_attention",
    "disable_xformers_memory_efficient_attention",
    "set_attention_backend",
    "reset_attention_backend",
    "compile_repeated_blocks",
):
    setattr(SymmetrizedVAE, _name, property(attrgetter(f"vae.{_name}")))

# A pipeline's model_index.json names the class by this path, which therefore stays.
SymmetrizedVAE.__module__ = "equivae.symmetry"


def load_symmetrized(folder: Path, **options: Any) -> SymmetrizedVAE:
    """What `load_vae` calls for a folder of a symmetrized VAE."""
    return SymmetrizedVAE.from_pretrained(folder, torch_dtype=options.get("torch_dtype"))


def _by_shape(domains: Mapping[Transform, Domain]) -> list[tuple[Domain, list[Transform]]]:
    """Elements whose crops can share one call."""
    found: dict[tuple[int, ...], tuple[Domain, list[Transform]]] = {}
    for element, domain in domains.items():
        key = tuple(domain.weights.shape)
        found.setdefault(key, (domain, []))[1].append(element)
    return list(found.values())


def _place(part: Tensor, domain: Domain, weights: Tensor, factor: int) -> Tensor:
    """A weighted crop on an otherwise empty grid, in float32 at least, whose sums do not round twice."""
    top, bottom, left, right = (
        side * factor for side in (domain.top, domain.bottom, domain.left, domain.right)
    )
    height, width = weights.shape
    wide = torch.promote_types(part.dtype, torch.float32)
    inside = weights[top:bottom, left:right].to(part.device, wide)
    padding = [left, width - right, top, height - bottom]
    return nn.functional.pad(part.to(wide) * inside, padding)


def _unwrap_latent(output: Any, vae: nn.Module) -> tuple[Tensor, Any]:
    """The tensor inside what `encode` returned, and how to wrap another like it."""
    if isinstance(output, Tensor):
        return output, lambda value: value
    if isinstance(output, (tuple, list)):
        tensor, wrap = _unwrap_latent(output[0], vae)
        return tensor, lambda value: (wrap(value),)
    kind: Any = type(output)
    name = next((n for n in ("latent_dist", "latents", "latent") if hasattr(output, n)), None)
    if name is not None:
        tensor, wrap = _unwrap_latent(getattr(output, name), vae)
        return tensor, lambda value: kind(**{name: wrap(value)})
    if isinstance(getattr(output, "parameters", None), Tensor):
        deterministic = bool(getattr(output, "deterministic", False))
        return output.parameters, lambda value: kind(value, deterministic=deterministic)
    raise InputError(
        f"`encode` of {type(vae).__name__} returned {type(output).__name__}, which symmetrize cannot put "
        "together from parts; it takes tensors, `latents`, `latent` and Gaussian posteriors."
    )

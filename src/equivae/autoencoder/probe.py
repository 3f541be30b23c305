"""Finding an autoencoder's geometry: encode and decode something small, until its shape comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from equivae.autoencoder.calls import Calls
from equivae.autoencoder.geometry import LAYOUTS, Axis, Geometry, Layout
from equivae.autoencoder.modes import at_top_level, evaluating, require_differentiable
from equivae.autoencoder.precision import has_mixed_dtypes, working_dtype
from equivae.errors import InputError, first_line

__all__ = ["has_frames", "probe"]

_SIDES = (64, 128, 256, 512)
_VIDEO_SIDES = (32, 64, 128, 256)
_SINGLE_FRAME_AFTER = 64
# Prime numbers of frames first, at which `step * k + 1` cannot be taken for `step * k`.
_FRAMES = (13, 17, 16, 24, 34)
_SAMPLES = (1024, 8192, 65536)
_SIZE_OPTIONS = ("sample_size", "image_size", "encoder_input_size", "sample_height", "resolution")
_CHANNEL_OPTIONS = (
    "in_channels",
    "input_channels",
    "audio_channels",
    "encoder_in_channels",
    "num_channels",
    "out_channels",
    "mel_bins",
)
_USUAL_CHANNELS = (3, 1, 4, 2)
_LARGEST_HINT = 512
_MOST_ATTEMPTS = 48  # no class of diffusers needs more than 20

_KNOWN: WeakKeyDictionary[nn.Module, tuple[Calls, _Layers, Geometry]] = WeakKeyDictionary()


class _Unsuitable(InputError):
    """The calls ran, but what they gave does not fit together at this size."""

    def __init__(self, message: str, decoded: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.decoded = decoded


def has_frames(module: nn.Module) -> bool:
    """Whether a module looks as if it took videos, so that images need a frame axis."""
    return any(isinstance(part, nn.Conv3d) for part in module.modules())


def probe(module: nn.Module, calls: Calls) -> Geometry:
    """The geometry of a module, found once for as long as it has the same layers.

    It is found with gradients recorded, whatever the caller's modes, since whose weights are whose is read
    off them. Raises `InputError`, with what was tried and the first failure, for a module that gives back
    no image, video or wave, and for weights that were made under `torch.inference_mode`.
    """
    known = _KNOWN.get(module)
    if known is not None and known[0] == calls and known[1].are_those_of(module):
        return known[2]
    require_differentiable(module)
    found = _search(module, calls)
    _KNOWN[module] = (calls, _Layers.of(module), found)
    return found


@dataclass(frozen=True)
class _Layers:
    """Which modules a module is made of, and the shapes of their weights."""

    parts: tuple[tuple[ref[nn.Module], tuple[tuple[int, ...], ...]], ...]

    @classmethod
    def of(cls, module: nn.Module) -> _Layers:
        return cls(tuple((ref(part), _shapes(part)) for part in module.modules()))

    def are_those_of(self, module: nn.Module) -> bool:
        parts = list(module.modules())
        return len(parts) == len(self.parts) and all(
            known() is part and shapes == _shapes(part)
            for part, (known, shapes) in zip(parts, self.parts, strict=True)
        )


def _shapes(part: nn.Module) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(p.shape) for p in part._parameters.values() if p is not None)


def _search(module: nn.Module, calls: Calls) -> Geometry:
    failure: Exception | None = None
    layouts, channels = _layouts(module), _channels(module)
    budget = _Budget(_MOST_ATTEMPTS)
    with at_top_level(), _requiring_grad(module):
        for layout in layouts:
            same: set[str] = set()
            for count in channels:
                tried = _Tried(budget)
                for sizes, likely in _sizes(module, layout):
                    if tried.whatever_the_size and not likely:
                        continue
                    found = _first_whole(module, calls, layout, count, sizes, tried)
                    if found is not None:
                        return found
                if tried.without_gradient is not None:
                    return tried.without_gradient
                if tried.unsuitable is not None:  # it is called so, but gives nothing that fits
                    raise InputError(str(tried.unsuitable)) from tried.unsuitable
                failure = failure or tried.failure
                if same and same == tried.messages:  # neither sizes nor channels are the reason
                    break
                same = tried.messages if tried.whatever_the_size else set()
    name, shape = type(module).__name__, LAYOUTS[layouts[0]][1]
    raise InputError(
        f"{name} could neither encode nor decode any of the tensors {shape} of {channels[0]} channels that "
        f"were tried: {first_line(failure)}. If it needs other arguments or shapes, teach the library this "
        "class with equivae.register_adapter(applies, encode, decode)."
    ) from failure


@dataclass
class _Budget:
    """How many attempts are left."""

    left: int

    def spend(self) -> bool:
        self.left -= 1
        return self.left >= 0


@dataclass
class _Tried:
    """What became of the attempts of one layout and number of channels; the first of each kind."""

    budget: _Budget
    failure: Exception | None = None
    unsuitable: InputError | None = None
    without_gradient: Geometry | None = None
    attempts: int = 0
    messages: set[str] = field(default_factory=set)

    @property
    def whatever_the_size(self) -> bool:
        """Whether tensors of several sizes failed in the very same words, which name no size."""
        return self.attempts > 1 and len(self.messages) == 1 and self.unsuitable is None


def _first_whole(
    module: nn.Module,
    calls: Calls,
    layout: Layout,
    count: int,
    sizes: Sequence[tuple[int, ...]],
    tried: _Tried,
) -> Geometry | None:
    asked = [(1, count, *size) for size in sizes]
    wanted = [*asked]
    for shape in wanted:
        if not tried.budget.spend():
            return None
        tried.attempts += 1
        try:
            found, differentiable = _at(module, calls, layout, shape)
        except _Unsuitable as error:
            tried.unsuitable = tried.unsuitable or error
            # What was too long or too short by a part of a cell comes back as whole cells; once, since
            # a decoder that scales up would never stop.
            retry = (1, count, *error.decoded[2:])
            if shape in asked and _worth(retry, shape) and retry not in wanted:
                wanted.append(retry)
        except InputError:
            raise
        except Exception as error:  # sizes or channels that it cannot take
            tried.failure = tried.failure or error
            tried.messages.add(str(error))
        else:
            if differentiable:
                return found
            tried.without_gradient = tried.without_gradient or found
    return None


def _worth(retry: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(retry) == len(shape) and all(
        0 < new <= 4 * old for new, old in zip(retry, shape, strict=True)
    )


def _at(
    module: nn.Module, calls: Calls, layout: Layout, shape: tuple[int, ...]
) -> tuple[Geometry, bool]:
    """Encode and decode once; the parameters that gradients reach are each half's own.

    Also whether gradients reach the image from the latent, and the latent from the decode.
    """
    named = dict(module.named_parameters())
    like = next(module.parameters(), torch.empty(0))
    image = torch.zeros(shape, device=like.device, dtype=like.dtype, requires_grad=True)
    latent = calls.encode(module, image, False, None)
    encoder, through_encoder = _reached(latent, image, named)
    given = _for_decoder(module, encoder, latent.detach().clone()).requires_grad_()
    decoded = calls.decode(module, given)
    decoder, through_decoder = _reached(decoded, given, named)
    name = type(module).__name__
    if latent.ndim != len(shape) or decoded.ndim != len(shape):
        raise _Unsuitable(
            f"{name} has latents of shape {tuple(latent.shape)} and returns {tuple(decoded.shape)} for "
            f"{LAYOUTS[layout][1]} = {shape}; the latent has to be a grid of the same axes."
        )
    axes = tuple(Axis.of(*sizes) for sizes in zip(shape[2:], latent.shape[2:], strict=True))
    squares = axes[1:] if layout == "video" else axes if layout == "image" else ()
    if any(axis.step is None or axis.step != squares[-1].step for axis in squares):
        raise _Unsuitable(
            f"{name} maps {_by(shape[-2:])} pixels to {_by(latent.shape[-2:])} latent cells, "
            "which is not a whole factor."
        )
    frames_first = layout == "video" and decoded.shape == (
        shape[0], shape[2], shape[1], *shape[3:]
    )  # fmt: skip
    if tuple(decoded.shape) != shape and not frames_first:
        raise _Unsuitable(
            f"{name} decodes the latent of {LAYOUTS[layout][1]} = {shape} to {tuple(decoded.shape)}, so "
            "there is nothing to compare the decode with; if `encode` and `decode` need other arguments, "
            "teach the library this class with equivae.register_adapter(applies, encode, decode).",
            tuple(decoded.shape),
        )
    if layout == "audio" and latent.shape[-1] < 2:
        raise _Unsuitable(f"{name} makes one latent step of {shape[-1]} samples.")
    framed = layout == "video" and shape[2] == 1
    found = Geometry(
        layout="image" if framed else layout,
        axes=axes[1:] if framed else axes,
        image_channels=shape[1],
        latent_channels=latent.shape[1],
        encoder_parameters=encoder,
        decoder_parameters=decoder,
        framed=framed,
        frames_first=frames_first,
    )
    return found, through_encoder and through_decoder


def _reached(
    output: Tensor, source: Tensor, named: dict[str, nn.Parameter]
) -> tuple[frozenset[str], bool]:
    """The parameters that a gradient reaches, and whether it reaches the source."""
    if not output.requires_grad:
        return frozenset(), False
    of = [source, *named.values()]
    to_source, *gradients = torch.autograd.grad(output.float().sum(), of, allow_unused=True)
    reached = frozenset(n for n, g in zip(named, gradients, strict=True) if g is not None)
    return reached, to_source is not None


def _for_decoder(module: nn.Module, encoder: frozenset[str], latent: Tensor) -> Tensor:
    """The latent in the dtype of the weights that the encoder did not need, where dtypes are mixed."""
    rest = [p for name, p in module.named_parameters() if name not in encoder]
    return latent.to(working_dtype(rest, latent.dtype)) if has_mixed_dtypes(module) else latent


@contextmanager
def _requiring_grad(module: nn.Module) -> Iterator[None]:
    """Every parameter requires a gradient and nothing is in training mode; then all as it was."""
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    plain = [
        (m, n, t) for m in module.modules() for n, t in vars(m).items() if isinstance(t, Tensor)
    ]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(parameter.is_floating_point())
        with evaluating(module):
            yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for part, name, tensor in plain:  # weight_norm leaves what it computed, with its graph
            vars(part)[name] = tensor


# What to try ------------------------------------------------------------------------------------


def _layouts(module: nn.Module) -> list[Layout]:
    """All of them, the likeliest first, by the kinds of convolution."""
    kinds: list[tuple[type[nn.Module], Layout]] = [
        (nn.Conv3d, "video"),
        (nn.Conv2d, "image"),
        (nn.Conv1d, "audio"),
    ]
    present = [
        layout for kind, layout in kinds if any(isinstance(part, kind) for part in module.modules())
    ]
    rest: list[Layout] = ["image", "video", "audio"]
    return present + [layout for layout in rest if layout not in present]


def _channels(module: nn.Module) -> list[int]:
    """What the images may have, the likeliest first: nothing says whose the first convolution is."""
    config = getattr(module, "config", None)
    configured = [getattr(config, name, None) for name in _CHANNEL_OPTIONS]
    found = [count for count in configured if isinstance(count, int) and count > 0]
    if not found:
        convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        first = next((m.in_channels for m in module.modules() if isinstance(m, convolutions)), 3)
        found = [first] if first in _USUAL_CHANNELS else []
    return list(dict.fromkeys([*found, *_USUAL_CHANNELS]))


def _sizes(module: nn.Module, layout: Layout) -> Iterator[tuple[Sequence[tuple[int, ...]], bool]]:
    """Sizes of the axes after the channels, in groups: a later group only when an earlier one failed.

    With each group, whether something speaks for it, so that it is tried even when sizes do not matter.
    """
    if layout == "audio":
        yield from (([(length,)], False) for length in _SAMPLES)
        return
    sides = _SIDES if layout == "image" else _VIDEO_SIDES
    config = getattr(module, "config", None)
    hints = [getattr(config, name, None) for name in _SIZE_OPTIONS]
    known = [side for side in hints if isinstance(side, int) and 0 < side <= _LARGEST_HINT]
    for side in dict.fromkeys((*sides, *known)):
        if layout == "image":
            yield [(side, side)], side in known
            continue
        yield [(frames, side, side) for frames in _FRAMES], side in known
        if side == _SINGLE_FRAME_AFTER:  # images alone, in the shape of videos
            yield [(1, side, side) for side in sides], True


def _by(sizes: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, sizes))

"""A small random model of every autoencoder class that the installed diffusers has, and what works with it.

`python tests/matrix_models.py --write docs/autoencoders.md` runs the whole matrix and writes its table.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

import equivae
from equivae.autoencoder import check_images, check_transforms, layout_of
from equivae.files.pretrained import save_vae

DOCS = Path(__file__).parents[1] / "docs" / "autoencoders.md"
BEGIN, END = "<!-- the matrix begins -->", "<!-- the matrix ends -->"


@dataclass(frozen=True)
class Entry:
    """How a small model of a class is made, and what it is fed.

    Attributes:
        config: the smallest options that still have every kind of layer.
        shape: of the input, or `None` for a class that cannot be handled.
        prepare: called on the model first.
        note: what a user should know, shown in the table.
        cannot: for a class that cannot be handled, a part of the `InputError` that says so.
        without: transforms that its calls cannot do, for the reason in `note`.
    """

    config: dict[str, Any]
    shape: tuple[int, ...] | None = None
    prepare: Callable[[Any], Any] | None = None
    note: str = ""
    cannot: str = ""
    without: tuple[str, ...] = ()


_KL_BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
_FLAT4 = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
_FOUR_LEVELS = {
    "latent_channels": 4,
    "block_out_channels": (4, 4, 4, 4),
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
_HUNYUAN = {"latent_channels": 4, "block_out_channels": (8,) * 5, "layers_per_block": 1}
_IMAGE, _VIDEO, _WAVE = (2, 3, 32, 32), (2, 3, 5, 32, 32), (2, 2, 64)

ENTRIES: dict[str, Entry] = {
    # images
    "AutoencoderKL": Entry({**_KL_BLOCKS, "block_out_channels": (8, 8)}, _IMAGE),
    "AsymmetricAutoencoderKL": Entry(
        {**_KL_BLOCKS, "down_block_out_channels": (8, 8), "up_block_out_channels": (8, 16)},
        _IMAGE,
        note="only plain decodes; the branch for an image and a mask is not used",
    ),
    "AutoencoderTiny": Entry(
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        _IMAGE,
    ),
    "AutoencoderDC": Entry(
        {
            "latent_channels": 4,
            "attention_head_dim": 4,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
        },
        _IMAGE,
    ),
    "VQModel": Entry(
        {**_KL_BLOCKS, "block_out_channels": (8, 8), "num_vq_embeddings": 16},
        _IMAGE,
        note="latents are those before quantisation, and `decode` quantises; the codebook gets no gradient",
    ),
    "ConsistencyDecoderVAE": Entry(
        {
            "encoder_block_out_channels": (8, 8),
            "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
            "encoder_norm_num_groups": 4,
            "encoder_layers_per_block": 1,
            "decoder_block_out_channels": (8, 8),
            "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "decoder_norm_num_groups": 4,
            "decoder_layers_per_block": 1,
        },
        _IMAGE,
        note="every decode uses the same noise",
    ),
    "AutoencoderKLFlux2": Entry(
        {
            **_KL_BLOCKS,
            "block_out_channels": (8, 8),
            "latent_channels": 4,
            "layers_per_block": 1,
        },
        _IMAGE,
    ),
    "AutoencoderKLHunyuanImage": Entry(
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": (32, 32),
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 32,
        },
        (2, 3, 16, 16),
    ),
    "AutoencoderKLKVAE": Entry(
        {
            "channels": 32,
            "num_enc_blocks": 1,
            "num_dec_blocks": 1,
            "z_channels": 4,
            "ch_mult": (1, 1),
        },
        (2, 3, 16, 16),
    ),
    "AutoencoderKLQwenImage21": Entry(
        {
            "base_dim": 4,
            "decoder_base_dim": 4,
            "z_dim": 4,
            "dim_mult": [1, 1],
            "num_res_blocks": 1,
            "temperal_downsample": [True],
            **_FLAT4,
        },
        (2, 4, 32, 32),
        note="its calls take videos of one frame; the time convolutions are not used",
    ),
    "AutoencoderRAE": Entry(
        {
            "encoder_type": "mae",
            "encoder_hidden_size": 64,
            "encoder_patch_size": 8,
            "encoder_num_hidden_layers": 1,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
            "patch_size": 8,
            "encoder_input_size": 32,
            "image_size": 32,
        },
        _IMAGE,
        note="accepts only one image size, so no crop",
        without=("crop",),
    ),
    # videos
    "AutoencoderKLWan": Entry(
        {
            "base_dim": 4,
            "z_dim": 4,
            "dim_mult": [1, 1, 1],
            "num_res_blocks": 1,
            "temperal_downsample": [True, True],
            "scale_factor_spatial": 4,
            **_FLAT4,
        },
        _VIDEO,
    ),
    "AutoencoderKLQwenImage": Entry(
        {
            "base_dim": 4,
            "z_dim": 4,
            "dim_mult": [1, 1, 1],
            "num_res_blocks": 1,
            "temperal_downsample": [True, True],
            **_FLAT4,
        },
        _VIDEO,
    ),
    "AutoencoderKLCogVideoX": Entry(
        {**_FOUR_LEVELS, "sample_height": 32, "sample_width": 32}, (2, 3, 9, 32, 32)
    ),
    "AutoencoderKLLTXVideo": Entry(
        {
            "latent_channels": 8,
            "block_out_channels": (4, 4, 4, 4),
            "decoder_block_out_channels": (4, 4, 4, 4),
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 5,
            "patch_size": 1,
            "spatio_temporal_scaling": (True, True, False, False),
            "decoder_spatio_temporal_scaling": (True, True, False, False),
        },
        _VIDEO,
    ),
    "AutoencoderKLLTX2Video": Entry(
        {
            "latent_channels": 8,
            "block_out_channels": (8, 16, 32, 64),
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 4,
            "patch_size": 1,
        },
        (2, 3, 9, 32, 32),
    ),
    "AutoencoderKLMochi": Entry(
        {
            "encoder_block_out_channels": (32,) * 4,
            "decoder_block_out_channels": (32,) * 4,
            "latent_channels": 4,
            "layers_per_block": (1,) * 5,
            "latents_mean": (0.0,) * 4,
            "latents_std": (1.0,) * 4,
        },
        (2, 3, 7, 16, 16),
    ),
    "AutoencoderKLMagvit": Entry(_FOUR_LEVELS, _VIDEO),
    "AutoencoderKLAllegro": Entry(
        {
            "latent_channels": 4,
            "down_block_types": ("AllegroDownBlock3D",) * 3,
            "up_block_types": ("AllegroUpBlock3D",) * 3,
            "block_out_channels": (2, 2, 2),
            "temporal_downsample_blocks": (True, True, False),
            "temporal_upsample_blocks": (True, True, False),
            "layers_per_block": 1,
            "norm_num_groups": 1,
            "sample_size": 124,
        },
        (1, 3, 24, 124, 124),
        prepare=lambda model: (model.enable_tiling(), model.enable_slicing()),
        note="call `enable_tiling()` first, and for batches `enable_slicing()`: it works only in tiles of 24 "
        "frames and `sample_size` pixels, and returns zeros for smaller inputs, so no crop",
        without=("crop",),
    ),
    "AutoencoderKLCosmos": Entry(
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (4, 4, 4),
            "decode_block_out_channels": (4, 4, 4, 4),
            "attention_resolutions": (4,),
            "resolution": 32,
            "num_layers": 1,
            "patch_size": 2,
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 4,
            "latents_mean": None,
            "latents_std": None,
        },
        _VIDEO,
    ),
    "AutoencoderKLHunyuanVideo": Entry(_FOUR_LEVELS, _VIDEO),
    "AutoencoderKLHunyuanVideo15": Entry(
        _HUNYUAN,
        _VIDEO,
        prepare=lambda model: model.enable_slicing(),
        note="for batches call `enable_slicing()` first: its attention mask is for one video",
    ),
    "AutoencoderKLHunyuanImageRefiner": Entry(_HUNYUAN, _VIDEO),
    "AutoencoderKLMiniMaxH3": Entry(
        {
            "latent_channels": 4,
            "block_out_channels": (4, 4, 4),
            "spatial_downsample_factors": (2, 2, 2),
            "temporal_downsample_factors": (1, 2, 2),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "decoder_num_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_attention_head_dim": 16,
            "latents_mean": (0.0,) * 4,
            "latents_std": (1.0,) * 4,
        },
        (2, 3, 22, 32, 32),
        note="encodes `17 k + 5` frames in overlapping clips; the `5 k + 2` latent steps do not tile the "
        "time axis regularly",
    ),
    "AutoencoderKLKVAEVideo": Entry(
        {
            "ch": 32,
            "ch_mult": (1, 1),
            "num_res_blocks": 1,
            "z_channels": 4,
            "temporal_compress_times": 2,
        },
        (2, 3, 3, 16, 16),
    ),
    "AutoencoderVidTok": Entry(
        {"ch": 4, "ch_mult": [1, 1, 1, 1], "z_channels": 4, "num_res_blocks": 1},
        _VIDEO,
        note="equivae repeats the first frame before `encode`, as its `forward` does",
    ),
    "Kandinsky6SRVAE": Entry(
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (16,) * 4,
            "decoder_block_out_channels": (16,) * 4,
            "layers_per_block": 1,
        },
        _VIDEO,
    ),
    "AutoencoderKLTemporalDecoder": Entry(
        {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "block_out_channels": (32, 32),
            "latent_channels": 4,
        },
        (2, 3, 3, 16, 16),
        note="equivae puts frames into the batch and passes `num_frames` to `decode`",
    ),
    # audio
    "AutoencoderOobleck": Entry(
        {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 4],
            "channel_multiples": [1, 2],
            "decoder_channels": 8,
            "decoder_input_channels": 4,
        },
        _WAVE,
    ),
    "AutoencoderSAME": Entry(
        {
            "patch_size": 4,
            "encoder_channels": 8,
            "encoder_c_mults": [2],
            "encoder_strides": [4],
            "encoder_transformer_depths": [1],
            "latent_dim": 4,
            "dim_heads": 8,
        },
        _WAVE,
    ),
    "AutoencoderKLKVAEAudio": Entry(
        {
            "encoder_dim": 8,
            "encoder_rates": [2, 4],
            "latent_dim": 16,
            "codebook_dim": 4,
            "decoder_dim": 16,
            "decoder_rates": [4, 2],
            "attn_num_heads": 2,
        },
        (2, 1, 64),
    ),
    "AutoencoderKLMiniMaxH3Audio": Entry(
        {
            "encoder_dim": 8,
            "encoder_rates": (2, 4),
            "latent_dim": 16,
            "latent_channels": 4,
            "num_attention_heads": 2,
            "decoder_dim": 16,
            "decoder_rates": (4, 2),
            "decoder_kernel_sizes": (8, 4),
        },
        (2, 1, 64),
    ),
    "Cosmos3AVAEAudioTokenizer": Entry(
        {
            "vocoder_input_dim": 4,
            "dec_dim": 8,
            "dec_c_mults": (1, 2, 4),
            "dec_strides": (2, 2, 4),
            "enc_dim": 8,
            "enc_intermediate_dim": 16,
            "enc_num_layers": 2,
            "enc_n_fft": 8,
            "enc_hop_length": 4,
            "enc_latent_dim": 8,
            "enc_c_mults": (1, 2),
            "enc_strides": (2, 2),
            "hop_size": 16,
        },
        _WAVE,
        note="with `normalize_volume` the decode is louder than the input",
    ),
    "LongCatAudioDiTVae": Entry(
        {
            "channels": 8,
            "c_mults": [1, 2],
            "strides": [2, 4],
            "latent_dim": 4,
            "encoder_latent_dim": 8,
            "downsampling_ratio": 8,
        },
        (2, 1, 64),
        note="encodes to the mean: equivae passes on `sample_posterior`",
    ),
    "MMAudioVAE": Entry(
        {
            "mel_bins": 16,
            "latent_channels": 4,
            "hidden_channels": 16,
            "layers_per_block": 1,
            "n_fft": 64,
            "hop_length": 16,
            "sample_rate": 8000,
        },
        (2, 16, 32),
        note="for mel spectrograms `(B, mel_bins, T)`",
    ),
    "AutoencoderKLLTX2Audio": Entry(
        {
            "base_channels": 32,
            "ch_mult": (1, 1, 1),
            "num_res_blocks": 1,
            "latent_channels": 4,
            "resolution": 32,
            "mel_bins": 16,
        },
        (2, 2, 17, 16),
        note="for mel spectrograms `(B, C, T, mel_bins)`; time is the height, and it is causal",
    ),
    # configurations of diffusers' own tests that take another way
    "AutoencoderKLLTXVideo(timestep_conditioning=True)": Entry(
        {
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (16, 32, 64),
            "layers_per_block": (1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "spatio_temporal_scaling": (True, True, True, False),
            "decoder_spatio_temporal_scaling": (True, True, True),
            "decoder_inject_noise": (True, True, True, False),
            "upsample_residual": (True, True, True),
            "upsample_factor": (2, 2, 2),
            "timestep_conditioning": True,
            "patch_size": 1,
        },
        (2, 3, 9, 16, 16),
        note="decodes at timestep 0.05, always with the same noise",
    ),
    'AutoencoderKLLTX2Audio(causality_axis="none")': Entry(
        {
            "latent_channels": 4,
            "base_channels": 16,
            "ch_mult": (1, 2, 4),
            "resolution": 16,
            "causality_axis": "none",
            "mel_bins": 16,
        },
        (2, 2, 16, 16),
        note="for mel spectrograms `(B, C, T, mel_bins)`; equivae keeps the samples that `decode` cuts off "
        "as if time were causal; accepts only one number of bins, so no crop",
        without=("crop",),
    ),
    # those that cannot
    "RFD4ProteinaAutoencoder": Entry(
        {
            "atom37_mask": [[True] * 37] * 4,
            "allowed_residue_types": [[True] * 4] * 4,
            "n_residue_types": 4,
            "nlayers": 1,
            "token_dim": 16,
            "nheads": 2,
            "dim_cond": 8,
            "pair_repr_dim": 8,
        },
        cannot="`encode` of RFD4ProteinaAutoencoder needs padding_mask",
        note="encodes the atoms of a protein, which have no grid",
    ),
    "LTX2VideoDiffusionDecoderModel": Entry(
        {
            "latent_channels": 4,
            "patch_size": 1,
            "decoder_head_dim": 8,
            "decoder_stage_channels": (64, 32, 16, 16, 8),
            "decoder_stage_depths": (1, 1, 1, 1, 1),
        },
        cannot="LTX2VideoDiffusionDecoderModel is not an autoencoder: it has no `encode` call",
        note="only a decoder",
    ),
    "MMAudioVocoder": Entry(
        {"num_mels": 16, "upsample_initial_channel": 64},
        cannot="MMAudioVocoder is not an autoencoder: it has no `encode` call",
        note="a vocoder: mel spectrograms to waves",
    ),
    "MiniMaxMusic3Vocoder": Entry(
        {"latent_channels": 8, "decoder_input_dim": 16, "decoder_hidden_dim": 32},
        cannot="MiniMaxMusic3Vocoder is not an autoencoder: it has no `encode` call",
        note="a vocoder: latents to waves",
    ),
}


def autoencoder_classes() -> list[str]:
    """Every model that diffusers exports which encodes and decodes, or lies among its autoencoders."""
    found = []
    for name in dir(diffusers):
        cls = getattr(diffusers, name, None)
        if not (inspect.isclass(cls) and issubclass(cls, diffusers.ModelMixin)):
            continue
        both = all(callable(getattr(cls, call, None)) for call in ("encode", "decode"))
        if both or cls.__module__.startswith("diffusers.models.autoencoders."):
            found.append(name)
    return sorted(found)


def class_of(name: str) -> str:
    """The class of an entry, whose name may go on with an option that makes a difference."""
    return name.partition("(")[0]


def variants() -> list[str]:
    """The entries beyond the first of their class."""
    return [name for name in ENTRIES if class_of(name) != name]


def make(name: str) -> nn.Module:
    """The small random model of a class."""
    entry = ENTRIES[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = getattr(diffusers, class_of(name))(**entry.config).eval()
        # Layers that start at zero would let no gradient through to what lies before them.
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    if entry.prepare is not None:
        entry.prepare(model)
    return model


def inputs(name: str) -> Tensor:
    """What it is fed: noise in [-0.9, 0.9]."""
    shape = ENTRIES[name].shape
    assert shape is not None
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9


@dataclass
class Row:
    """What one class does; `None` and empty where it cannot be handled."""

    name: str
    layout: str = ""
    input_shape: tuple[int, ...] = ()
    latent_shape: tuple[int, ...] = ()
    factor: str = ""
    time_factor: str = ""
    transforms: list[str] = field(default_factory=list)
    images_too: bool = False
    works: bool = False
    note: str = ""

    def cells(self) -> list[str]:
        mark = "✓" if self.works else "no"
        shapes = ["×".join(map(str, shape[1:])) for shape in (self.input_shape, self.latent_shape)]
        small = [
            " → ".join(shapes) if self.works else "",
            f"factor {self.factor}" if self.factor else "",
            f"time factor {self.time_factor}" if self.time_factor else "",
        ]
        return [
            f"`{self.name}`",
            mark,
            self.layout + (", image" if self.images_too else ""),
            ", ".join(self.transforms),
            self.note,
            "; ".join(part for part in small if part),
        ]

    def markdown(self) -> str:
        return "| " + " | ".join(self.cells()) + " |"


HEADER = [
    "class",
    "works",
    "layout",
    "lattice transforms",
    "note",
    "the tests' small model: input → latent",
]


def lattice_transforms(layout: str) -> list[str]:
    """Every exact move of whole cells that a layout has."""
    space = [
        *("rot180", "hflip", "vflip", "rot90", "rot270", "transpose", "antitranspose"),
        *("shift", "crop"),
    ]
    time = ["time_reverse", "time_shift"]
    return {"image": space, "video": space + time, "audio": [*time, "polarity"]}[layout]


def examine(name: str) -> Row:
    """Everything that the matrix promises, for one class; `AssertionError` where it does not hold."""
    entry = ENTRIES[name]
    model = make(name)
    if entry.cannot:
        message = _refusal(lambda: equivae.Autoencoder(model))
        assert message, f"{name} can be handled after all; give it an input"
        assert entry.cannot in message
        assert "register_adapter" in message
        return Row(name, note=f"{entry.note} ({_why(message)})")
    vae, x = equivae.Autoencoder(model), inputs(name)
    check_images(x, vae)
    with torch.no_grad():
        z = vae.encode(x)
        assert vae.decode(z).shape == x.shape, "the decode has another shape"
    assert z.ndim == x.ndim
    assert z.shape[:2] == (x.shape[0], vae.latent_channels)
    allowed = check_allowed(name, vae, x)
    check_losses(vae, x, allowed)
    check_step(vae, x, allowed)
    check_files(model, x)
    row = Row(name, works=True, note=entry.note, transforms=shown(allowed, layout_of(x)))
    row.layout, row.input_shape, row.latent_shape = vae.layout, tuple(x.shape), tuple(z.shape)
    row.images_too = vae.layout == "video" and takes_images(vae, x)
    space = [axis for axis in vae.geometry.axes if axis is not vae.geometry.time]
    row.factor = _tiling(space[0]) if space else ""
    if space and space[0] != space[1]:
        row.factor = f"{_tiling(space[0])}, {_tiling(space[1])}"
    row.time_factor = "" if vae.geometry.time is None else _tiling(vae.geometry.time)
    return row


def _refusal(call: Callable[[], object]) -> str:
    """The message of the `InputError` that a call raises, or nothing."""
    try:
        call()
    except equivae.InputError as error:
        return str(error)
    return ""


def check_allowed(name: str, vae: equivae.Autoencoder, x: Tensor) -> list[equivae.Transform]:
    """The lattice transforms that the axes allow; each decodes to the shape of the moved input."""
    entry, layout = ENTRIES[name], layout_of(x)
    allowed = []
    with torch.no_grad():
        z = vae.encode(x)
        for spelling in lattice_transforms(layout):
            t = equivae.get_transform(spelling)
            refusal = _refusal(lambda: check_transforms([t], layout, vae))  # noqa: B023
            if refusal:
                assert "moves the" in refusal
                continue
            placed = vae.place(t)
            wanted = placed.pixel(x).shape
            if spelling in entry.without:
                other_cells = vae.encode(placed.pixel(x)).shape != placed.latent(z).shape
                decoded = vae.decode(placed.latent(z))
                assert other_cells or decoded.shape != wanted or not decoded.any()
                continue
            assert vae.decode(placed.latent(z)).shape == wanted, spelling
            assert vae.encode(placed.pixel(x)).shape == placed.latent(z).shape, spelling
            allowed.append(t)
    assert allowed
    return allowed


def _gradients(vae: equivae.Autoencoder, chosen: list[nn.Parameter]) -> Iterator[bool]:
    identities = {id(parameter) for parameter in chosen}
    for parameter in vae.module.parameters():
        reached = parameter.grad is not None
        assert reached == (id(parameter) in identities), "a gradient of what was not asked for"
        if reached:
            assert torch.isfinite(parameter.grad).all()
            yield bool(parameter.grad.any())


def check_losses(vae: equivae.Autoencoder, x: Tensor, transforms: list[equivae.Transform]) -> None:
    """Finite, and gradients reach exactly the weights asked for, under both schedules."""
    encoder, decoder = vae.encoder_parameters(), vae.decoder_parameters()
    assert encoder
    assert decoder
    both = list({id(p): p for p in (*encoder, *decoder)}.values())
    runs = [
        ("dual", both, transforms),
        ("sampled", encoder, transforms),
        ("sampled", decoder, transforms),
    ]
    for schedule, chosen, wanted in runs:
        vae.module.requires_grad_(False)
        vae.module.zero_grad(set_to_none=True)
        for parameter in chosen:
            parameter.requires_grad_(True)
        same_size = [t for t in wanted if t.name.partition("(")[0] != "crop"]
        loss_fn = equivae.EquivarianceLoss(
            wanted if schedule == "dual" else same_size, schedule=schedule, probability=0.5
        )
        out = loss_fn(vae, x, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(out.loss)
        assert schedule == "sampled" or len(out.terms) == 1 + len(wanted)
        out.loss.backward()
        nonzero = list(_gradients(vae, chosen))
        assert any(nonzero)
    vae.module.zero_grad(set_to_none=True)
    vae.module.requires_grad_(True)


def check_step(vae: equivae.Autoencoder, x: Tensor, transforms: list[equivae.Transform]) -> None:
    """One optimiser step moves the encoder and the decoder, and the loss is still finite."""
    encoder, decoder = vae.encoder_parameters(), vae.decoder_parameters()
    before = [[p.detach().clone() for p in half] for half in (encoder, decoder)]
    loss_fn = equivae.EquivarianceLoss(transforms[0])
    optimizer = torch.optim.AdamW(vae.module.parameters(), lr=1e-3)
    loss_fn(vae, x).loss.backward()
    optimizer.step()
    for old, half in zip(before, (encoder, decoder), strict=True):
        assert any(not a.equal(b) for a, b in zip(old, half, strict=True))
        assert all(torch.isfinite(p).all() for p in half)
    vae.module.zero_grad(set_to_none=True)


def check_files(model: nn.Module, x: Tensor) -> None:
    """What is saved loads as the same class with the same weights, and encodes alike."""
    with tempfile.TemporaryDirectory() as folder:
        save_vae(model, folder)
        loaded = equivae.load_vae(folder)
    assert type(loaded) is type(model)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[key]) for key, value in ours.items())
    if getattr(model, "use_tiling", False):
        loaded.enable_tiling()
    with torch.no_grad():
        a, b = (equivae.Autoencoder(m.eval()).encode(x[:1]) for m in (model, loaded))
    assert torch.equal(a, b)


def takes_images(vae: equivae.Autoencoder, videos: Tensor) -> bool:
    """Whether one frame goes through as an image."""
    images = videos[:, :, 0]
    try:
        check_images(images, vae)
        with torch.no_grad():
            return vae.decode(vae.encode(images)).shape == images.shape
    except (equivae.InputError, RuntimeError, ValueError):
        return False


def shown(transforms: list[equivae.Transform], layout: str) -> list[str]:
    """Names for the table; `all of space` where no move of the plane is missing."""
    names = [t.name.partition("(")[0] for t in transforms]
    space = lattice_transforms("image")
    if layout != "audio" and set(space) <= set(names):
        return ["all of space", *(name for name in names if name not in space)]
    return names


def _tiling(axis: Any) -> str:
    if axis.step is None:
        return "uneven"
    return str(axis.step) if axis.even else f"{axis.step} ({axis.step} k + {axis.first})"


def _why(message: str) -> str:
    return (
        message.partition(";")[0].partition(". ")[0].partition(": ")[2]
        or message.partition(" beside")[0]
    )


def table(rows: list[Row]) -> str:
    order = ["image", "video", "audio", ""]
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for row in sorted(rows, key=lambda row: (order.index(row.layout), row.name)):
        lines.append(row.markdown())
    return "\n".join(lines)


def documented() -> dict[str, str]:
    """The rows in the docs, by class."""
    text = DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def write(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    rows = table([examine(name) for name in (*autoencoder_classes(), *variants())])
    path.write_text(f"{head}{BEGIN}\n{rows}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit(f"usage: {sys.argv[0]} --write docs/autoencoders.md")
    write(Path(sys.argv[2]) if len(sys.argv) > 2 else DOCS)

"""The autoencoder and the images that come in the wheel, for demos, tests and teaching."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equivae.files.pretrained import EMBEDDED

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["folder", "load", "photographs"]


def folder() -> Path:
    """The diffusers folder of the embedded VAE: `config.json`, safetensors and its card."""
    return EMBEDDED


def load(**options: Any) -> AutoencoderKL:
    """The embedded VAE: an ordinary f4 `AutoencoderKL` with 4 latent channels, in eval mode.

    Args:
        options: handed to `AutoencoderKL.from_pretrained`, such as `torch_dtype`.

    ```python
    vae = equivae.zoo.load()
    assert vae.config.latent_channels == 4
    ```
    """
    from diffusers import AutoencoderKL

    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder(), use_safetensors=True, **options)
    return vae.eval()


def photographs(resolution: int = 256) -> Tensor:
    """Six photographs that neither the embedded VAE nor the demo trains on.

    Three public-domain and CC0 photographs that scikit-image collects (astronaut, chelsea, coffee),
    each whole and as a detail. Float32 `(6, 3, resolution, resolution)` in [-1, 1].
    """
    import torch

    from equivae.data import load_images

    dataset = load_images(Path(__file__).parent / "photographs", resolution=resolution)
    return torch.stack([dataset[i] for i in range(len(dataset))])

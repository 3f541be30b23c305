"""Where autoencoders come from and go to: folders, single files, the hub; safetensors only.

Every name is imported on first use, so that `equivae.files.writing` does not need diffusers.
"""

from equivae._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

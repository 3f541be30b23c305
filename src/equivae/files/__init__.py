"""Where autoencoders come from and go to: folders, single files, the hub; safetensors only.

Every name is imported on first use, so that `equivae.files.writing` does not need diffusers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Make any diffusers VAE equivariant: a transform of the latent decodes to the same transform of the image.

Every name is imported on first use, so that `import equivae` costs nothing. `__init__.pyi` lists them.
"""

from equivae._lazy import attach
from equivae._moved import find_moved

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)

find_moved()

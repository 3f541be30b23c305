"""Latent ops in closed form: fitting, fitted transforms, and what they are as representations.

Every name is imported on first use, so that `equivae.operators.runtime` needs torch and safetensors alone.
`__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Latent ops in closed form: fitting, fitted transforms, and what they are as representations.

Every name is imported on first use, so that `equivae.operators.runtime` needs torch and safetensors alone.
`__init__.pyi` lists them.
"""

from equivae._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

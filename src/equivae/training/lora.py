r"""Low-rank factors beside the weights of a VAE, through peft: small files, merged into plain weights.

A layer with weight `W` learns `W + \frac{\alpha}{r} B A`, where `A` and `B` have rank `r` (Hu et al., LoRA,
arXiv 2106.09685). `B` begins at zero, so that the VAE begins as it is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from equivae.autoencoder import copy_module
from equivae.errors import InputError, first_line
from equivae.files.pretrained import load_vae

__all__ = ["Lora", "load_lora"]

_NAME = "default"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Lora:
    """Factors beside some layers of a module, which is changed in place until they are folded in.

    Args:
        module: the VAE.
        config: a `peft.LoraConfig`.
        seed: of the factors that begin at random.

    Attributes:
        module: the VAE with the factors in it.
        parameters: the factors' weights, which learn; all others rest.
    """

    def __init__(self, module: nn.Module, config: Any, *, seed: int = 0) -> None:
        from peft.tuners.lora import LoraModel

        devices = [p.device for p in module.parameters() if p.device.type == "cuda"][:1]
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(seed)
            self._tuner: Any = LoraModel(module, {_NAME: config}, _NAME)
        self.module, self._config = module, config
        self._pad_alike()
        self.parameters = [p for name, p in module.named_parameters() if ".lora_" in name]
        self._kept: dict[str, Tensor] | None = None

    @classmethod
    def beside(
        cls, module: nn.Module, layers: Sequence[str], rank: int, alpha: float | None, *, seed: int
    ) -> Lora:
        """New factors beside the layers of those names."""
        from peft import LoraConfig

        names = "|".join(re.escape(layer) for layer in layers)
        weight = alpha if alpha is not None else rank
        config = LoraConfig(r=rank, lora_alpha=weight, target_modules=rf"(?:{names})")
        return cls(module, config, seed=seed)

    def _pad_alike(self) -> None:
        """A factor pads as its layer does, or the merged weight would do something else at the border."""
        for layer in self.module.modules():
            base: Any = getattr(layer, "base_layer", None)
            if not hasattr(base, "padding_mode"):
                continue
            factors: Any = layer.lora_A
            for factor in factors.values():
                factor.padding_mode, factor.dilation = base.padding_mode, base.dilation
                factor._reversed_padding_repeated_twice = base._reversed_padding_repeated_twice

    def state(self) -> dict[str, Tensor]:
        """The factors by name, on the CPU."""
        if self._kept is not None:
            return self._kept
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._tuner, adapter_name=_NAME)
        return {name: value.detach().cpu().clone().contiguous() for name, value in found.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the factors of a file; `InputError` unless they are beside the same layers."""
        own = {name: tuple(value.shape) for name, value in self.state().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if own != given:
            odd = sorted(set(own.items()) ^ set(given.items()))[0][0]
            raise InputError(
                f"these low-rank factors are of another VAE ({odd} differs); pass the VAE that they were "
                "trained on."
            )
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self._tuner, state, adapter_name=_NAME)

    def merge(self) -> None:
        """Add the factors' product to the weights, so that a call costs what it did before."""
        self._tuner.merge_adapter()

    def unmerge(self) -> None:
        """Take it out again."""
        self._tuner.unmerge_adapter()

    def fold(self) -> nn.Module:
        """The module with merged weights and without a trace of the factors, which `save` still has."""
        self._kept = self.state()
        module: nn.Module = self._tuner.unload() if self._merged else self._tuner.merge_and_unload()
        return module

    def folded(self) -> nn.Module:
        """A copy of the module as `fold` leaves it; this one goes on learning."""
        return copy.deepcopy(self).fold()

    @property
    def _merged(self) -> bool:
        return any(getattr(layer, "merged", False) for layer in self.module.modules())

    def save(self, folder: Path) -> None:
        """Write the factors in peft's layout: safetensors and a JSON of what they stand beside."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state(), folder / WEIGHTS)
        self._config.save_pretrained(str(folder))


def load_lora(vae: nn.Module | str | Path, folder: str | Path) -> Lora:
    """A copy of a VAE with the low-rank factors of a folder, as a fine-tune with `lora_rank` writes it.

    Args:
        vae: the VAE that the factors were trained on, or where to load it from; it stays as it is.
        folder: `lora` in the output folder of that run.

    `merge()` adds the factors to the copy's weights, `unmerge()` takes them out again, and `fold()` gives a
    plain VAE with merged weights. Raises `InputError` for a folder without factors, and for those of another
    VAE.

    ```python
    import equivae
    from equivae.training import load_lora

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    equivae.finetune(vae, images, "rot180", "out", train="lora", lora_rank=2, max_train_steps=1)
    lora = load_lora(vae, "out/lora")
    lora.fold().save_pretrained("merged")
    ```
    """
    folder = Path(folder)
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {missing[0]}; pass the folder of low-rank factors that a fine-tune with "
            "lora_rank writes, such as out/lora."
        )
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError(
            "low-rank factors need a package that is not here; `pip install equivae[lora]`."
        ) from error
    try:
        state, config = load_file(folder / WEIGHTS), LoraConfig.from_pretrained(str(folder))
        lora = Lora(copy_module(load_vae(vae)), config)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(
            f"the low-rank factors in {folder} do not suit this VAE ({first_line(error)}); pass the VAE that "
            "they were trained on."
        ) from error
    lora.load(state)
    return lora

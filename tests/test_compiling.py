"""`compile=True`: few graphs, and nothing of it left afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import equivae
from equivae.autoencoder import compiling
from models import noise, tiny_kl


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and counted as ever, and run as they are: no compiler is needed."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "_BACKEND", "eager")
    monkeypatch.setattr("equivae.training.plan.check_compiler", lambda device: None)


class Small(nn.Module):
    """A small f2 autoencoder of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.SiLU(), nn.Conv2d(4, 4, 3, 1, 1))
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 8, 3, 1, 1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 3, 1, 1)
        )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(latents)


@pytest.mark.usefixtures("traced")
def test_what_is_drawn_for_each_sample_asks_for_no_other_graph(tmp_path: Path) -> None:
    result = equivae.finetune(
        Small(),
        noise(8, 3, 16, 16),
        ["rot90", "random_rotate"],
        tmp_path / "out",
        validation_images=noise(2, 3, 16, 16, seed=1),
        train_batch_size=4,
        max_train_steps=6,
        validation_steps=2,
        bottleneck_steps=0,
        compile=True,
        progress=False,
    )
    # One of the encoder and one of the decoder, whatever was drawn in six steps and validated in between.
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert not counters["recompile_limit"]
    assert not any(compiling._is_compiled(part) for part in result.vae.modules())
    assert set(result.vae.state_dict()) == set(Small().state_dict())


def test_a_machine_without_a_compiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(equivae.InputError, match="compile=True needs a compiler for cpu"):
        compiling.check_compiler(torch.device("cpu"))


def test_parts_are_eager_within_and_compiled_again_afterwards() -> None:
    vae = equivae.Autoencoder(tiny_kl())
    with compiling.compiled(vae, noise(1, 3, 16, 16)):
        parts = [name for name, part in vae.module.named_modules() if compiling._is_compiled(part)]
        assert parts == ["encoder", "decoder"]
        with compiling.eager(vae.module):
            assert not any(compiling._is_compiled(part) for part in vae.module.modules())
        assert compiling._is_compiled(vae.module.decoder)
    assert not any(compiling._is_compiled(part) for part in vae.module.modules())

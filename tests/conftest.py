"""What all tests share: no network, a registry that forgets, and the data beside the repository."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # the tests run side by side
os.environ["ACCELERATE_USE_CPU"] = "1"  # bit for bit is a promise of the CPU alone

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from equivae.autoencoder import calls, conventions
from equivae.transforms import registry

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

torch.set_num_threads(1)
settings.register_profile("equivae", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("equivae")

# Whole files go to one worker each; a long one that starts last would keep the other worker waiting.
LONG_FILES = (
    "test_demo.py",
    "test_processes.py",
    "test_docs.py",
    "test_matrix.py",
    "test_contract.py",
    "test_docstrings.py",
    "test_session.py",
    "test_resume.py",
    "test_bottleneck.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def _forget_registrations() -> Iterator[None]:
    """Transforms, adapters and conventions that a test registers end with it."""
    factories, adapters = dict(registry._FACTORIES), list(calls._ADAPTERS)
    known = list(conventions._CONVENTIONS)
    yield
    registry._FACTORIES.clear()
    registry._FACTORIES.update(factories)
    calls._ADAPTERS[:] = adapters
    conventions._CONVENTIONS[:] = known


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the repository; the test is skipped where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"needs the data sets in {folder.parent.name}/{folder.name} beside the repository"
        )
    return folder

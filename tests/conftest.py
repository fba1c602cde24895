"""Shared by all tests."""

import pathlib

import pytest
import torch

# The tensors here are small: a second thread costs more than it brings, all the more on a busy
# machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """Folder of the repository."""
    return pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def datasets(tmp_path_factory) -> pathlib.Path:
    """A ``$DETECTRON2_DATASETS`` with a small generated dataset, in the layout of the demo."""
    from dnl_d2.data import generate_dataset

    folder = tmp_path_factory.mktemp("datasets")
    generate_dataset(str(folder / "generated"), train=8, val=4, size=(72, 96), seed=3, reach=20.0)
    return folder

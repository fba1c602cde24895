"""Shared by the tests of datasets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(autouse=True)
def catalogs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog))


@pytest.fixture
def folder(tmp_path: Path, save: Callable[..., str]) -> Path:
    """The images that tests.data.coco_form names."""
    for number in (1, 2, 3):
        save(f"{number}.png", np.full((40, 60, 3), 60 * number, np.uint8))
    return tmp_path

"""Preparing ADE20K."""

import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from tests.miniatures import (
    build_ade20k,
)
from tests.preparation.formats import ADE, prepare


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((40, 56), 151, np.uint8), r"holds the value 151, expected 0 \(other\) to 150"),
        (np.full((40, 56), 255, np.uint8), r"holds the value 255, expected 0 \(other\) to 150"),
        (np.full((40, 56), 1000, np.uint16), "holds the value 1000"),
        (np.zeros((40, 56, 3), np.uint8), r"holds colours \(mode RGB\), not class ids"),
    ],
)
def test_ade20k_of_another_encoding_is_named(label, message, tmp_path):
    build_ade20k(tmp_path)
    path = tmp_path / ADE / "annotations/validation/ADE_val_00000001.png"
    Image.fromarray(label).save(path)
    with pytest.raises(UsageError, match=rf"label {path} {message}"):
        prepare("ade20k", tmp_path)
    assert len(list(tmp_path.glob(f"{ADE}/annotations_detectron2/*/*.png"))) == 4


def test_ade20k_without_labels_is_an_error(tmp_path):
    build_ade20k(tmp_path, train=0, val=0)
    with pytest.raises(UsageError, match=r"annotations holds no \*/\*\.png: expected"):
        prepare("ade20k", tmp_path)

"""What a mapper fails on is named."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.structures import BoxMode

from dnl_d2.data.naming_mapper import NamingMapper
from dnl_d2.errors import UsageError, one_line
from tests.pictures import truncate


@pytest.fixture
def record(save, rng):
    path = save("image.png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    box = {"bbox": [1, 2, 9, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    return {"file_name": path, "height": 30, "width": 40, "annotations": [box]}


@pytest.fixture
def mapper():
    return NamingMapper(DatasetMapper(get_cfg(), True))


def test_a_sound_image_is_mapped(record, mapper):
    assert len(mapper(record)["instances"]) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named(record, mapper, workers):
    truncate(record["file_name"])
    loader = build_detection_test_loader([record], mapper=mapper, num_workers=workers)
    with pytest.raises(UsageError) as error:
        list(loader)
    line = one_line(error.value)
    assert line.startswith(f"image {record['file_name']} cannot be read (")


def test_no_picture_and_no_file(record, mapper, tmp_path):
    with pytest.raises(UsageError, match=r"none.png does not exist"):
        mapper(record | {"file_name": str(tmp_path / "none.png")})
    with open(record["file_name"], "w") as file:
        file.write("text")
    with pytest.raises(UsageError, match=r"image.png cannot be read .it is no picture"):
        mapper(record)


def test_another_size_and_wrong_annotations(record, mapper):
    with pytest.raises(UsageError, match=r"image.png .* cannot be used .SizeMismatchError: "):
        mapper(record | {"width": 41})
    record["annotations"][0]["bbox"] = [1, 2, 3]
    with pytest.raises(UsageError, match=r"image.png and its annotations cannot be used "):
        mapper(record)

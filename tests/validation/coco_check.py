"""A run of the check of files in COCO's form."""

import json
import logging

import pytest

from dnl_d2.validation.instances import InstanceTask, check_coco_dataset
from tests.data.coco_form import NAME


def task(**changes):
    values = {
        "num_classes": 2, "classes_key": "CLASSES", "masks": True, "masks_key": "MASKS",
        "mask_format": "polygon", "format_key": "FORMAT",
    }  # fmt: skip
    return InstanceTask(**(values | changes))


@pytest.fixture
def check(folder, caplog):
    """Returns ``check(content)``: writes the file, checks it, returns the line it logs."""

    def run(
        data, *, root=str(folder), test=False, own_loader=True, image_key="file_name", **changes
    ):
        path = folder / "file.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        options = {"task": task(**changes), "max_image_files": 9, "image_key": image_key}
        with caplog.at_level(logging.INFO):
            check_coco_dataset(NAME, str(path), root, test=test, own_loader=own_loader, **options)
        return caplog.records[-1].getMessage()

    return run

"""Folders of the datasets, and what the tests of their preparation share."""

import json

import numpy as np
from PIL import Image

from dnl_d2.preparation import prepare_dataset

ADE = "ADEChallengeData2016"
VOC, SBD, CONTEXT = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset", "VOCdevkit/VOC2010"


def prepare(name, root):
    return prepare_dataset(name, root=str(root), workers=2)


def indices(path):
    return np.asarray(Image.open(path))


def edit(path, change):
    """Has ``change`` alter what a JSON file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

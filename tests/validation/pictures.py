"""Labelled sets for the inspection, and what it finds in them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dnl_d2.validation import inspect_sets

ABC = ["a", "b", "c"]
RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


@pytest.fixture
def make(tmp_path, save, rng):
    """Returns ``make(label, ..., set="train")``: files 0, 1, ... of a set, each label a picture."""

    def write(*labels, folder="train", suffix=".png", **options):
        for number, label in enumerate(labels):
            size = label.size if isinstance(label, Image.Image) else label.shape[1::-1]
            image = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            save(f"{folder}/{number}.png", image)
            save(f"{folder}annot/{number}{suffix}", label, **options)
        return str(tmp_path / folder), str(tmp_path / f"{folder}annot")

    return write


def drawn(*values, mode="L", scale=1, smooth=1):
    """A picture of areas: ``values[0]`` all over, each other one in a disc; smoothly or not."""
    side = scale * smooth
    picture = Image.new(mode, (60 * side, 40 * side), values[0])
    for number, value in enumerate(values[1:]):
        box = (18 * number, 9 * number, 18 * number + 17, 9 * number + 17)
        ImageDraw.Draw(picture).ellipse([side * edge for edge in box], fill=value)
    return picture.reduce(smooth)


def found(*sets, **options):
    inspection = inspect_sets(sets, **options)
    for name, finding in inspection.findings:
        assert "\n" not in finding.line(name) and finding.line(name).startswith(finding.level)
    return {finding.code: finding for _, finding in inspection.findings}

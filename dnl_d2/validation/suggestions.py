"""A script that converts coloured labels."""

import os
from collections.abc import Sequence

_SCRIPT = '''"""Turns colours into class ids: order them as your classes, then run it."""

import os

import numpy as np
from PIL import Image

CLASSES = [  # class 0, 1, ...; everything else becomes 255 and is ignored
{colors}
]
TOLERANCE = {tolerance}  # how far a channel may be off
FOLDERS = {folders}

for source, target in FOLDERS.items():
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source)):
        if not name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")):
            continue
        rgb = np.asarray(Image.open(os.path.join(source, name)).convert("RGB")).astype(int)
        ids = np.full(rgb.shape[:2], 255, np.uint8)
        for number, color in enumerate(CLASSES):
            ids[(abs(rgb - color) <= TOLERANCE).all(axis=-1)] = number
        Image.fromarray(ids).save(os.path.join(target, os.path.splitext(name)[0] + ".png"))
'''


def conversion_script(
    colors: Sequence[tuple[int, float]], folders: Sequence[str], *, tolerance: int
) -> str:
    """A Python script that writes labels of class ids beside folders of coloured ones.

    Args:
        colors: 0xRRGGBB and its share of the pixels.
        folders: of the coloured labels.
        tolerance: how far a pixel's channel may be from a class's colour.
    """
    listed = "\n".join(
        f"    ({code >> 16}, {code >> 8 & 255}, {code & 255}),  # {share:.2%} of the pixels"
        for code, share in colors
    )
    targets = {folder: f"{folder.rstrip(os.sep)}_ids" for folder in folders}
    return _SCRIPT.format(colors=listed, tolerance=tolerance, folders=repr(targets))

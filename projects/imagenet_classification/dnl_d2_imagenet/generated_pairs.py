"""Pictures of two shapes, far apart, whose class is whether they are alike.

Neither shape tells the class: each kind is as frequent in both. A network that sees one shape at a
time, and adds up what it sees, does not learn it: the cross entropy is convex in what it adds, and
the classes stay the same if kinds change places, hence it is least where all kinds count alike,
which is guessing.
"""

import os
import shutil
import tempfile

import numpy as np
from PIL import Image, ImageDraw

from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError

CLASSES = ("alike", "unlike")
KINDS = ("disc", "triangle", "cross")
SIDE, RADIUS = 112, 8
_CORNERS = np.array([[16, 16], [16, 96], [96, 16], [96, 96]])
_JITTER = 4  # so shapes are 56 pixels or more apart


def draw_pair(rng: np.random.Generator, alike: bool) -> Image.Image:
    """One picture: noise, and two white shapes near two of its corners."""
    noise = rng.normal(110, 18, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    first = int(rng.integers(len(KINDS)))
    second = first if alike else (first + int(rng.integers(1, len(KINDS)))) % len(KINDS)
    places = rng.permutation(_CORNERS)[:2] + rng.integers(-_JITTER, _JITTER + 1, (2, 2))
    for kind, (x, y) in zip((first, second), places.tolist(), strict=True):
        _draw(ImageDraw.Draw(picture), KINDS[kind], x, y)
    return picture


def _draw(draw: ImageDraw.ImageDraw, kind: str, x: int, y: int) -> None:
    r, white = RADIUS, (235, 235, 235)
    if kind == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=white)
    elif kind == "triangle":
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=white)
    else:
        draw.rectangle((x - r, y - 3, x + r, y + 3), fill=white)
        draw.rectangle((x - 3, y - r, x + 3, y + r), fill=white)


def generate_pairs(folder: str, *, train: int = 4000, val: int = 1000, seed: int = 0) -> None:
    """Writes ``train`` and ``val`` with a folder for each class, half of the pictures in each.

    Args:
        folder: must not be there; it is there as a whole or not at all. Pictures of an earlier
            call, left beside new ones, could be in both splits.
        train, val: numbers of pictures.
        seed: other seeds draw other pictures.

    Raises:
        UsageError: the folder exists or cannot be written, or a number is too small.
    """
    if os.path.exists(folder):
        raise UsageError(f"{folder}: is there already; delete it, or choose another folder")
    if min(train, val) < len(CLASSES):
        raise UsageError(
            f"generated pairs: train {train} and val {val} must be {len(CLASSES)} or more"
        )
    rng = np.random.default_rng(seed)
    parent = os.path.dirname(os.path.abspath(folder))
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".generating-", dir=parent) as aside:
            fresh = os.path.join(aside, "fresh")
            for split, count in (("train", train), ("val", val)):
                _write_split(os.path.join(fresh, split), count, rng)
            shutil.move(fresh, folder)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _write_split(folder: str, count: int, rng: np.random.Generator) -> None:
    for name in CLASSES:
        os.makedirs(os.path.join(folder, name))
    for number in range(count):
        name = CLASSES[number % 2]
        picture = draw_pair(rng, alike=name == "alike")
        picture.save(os.path.join(folder, name, f"{number:05d}.png"))

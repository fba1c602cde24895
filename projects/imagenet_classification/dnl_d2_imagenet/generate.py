"""Pictures of two shapes, far apart, whose class is whether they are alike.

Neither shape tells the class: each kind is as frequent in both. A network that sees one shape at a
time, and adds up what it sees, cannot be better than chance.
"""

import argparse
import os

import numpy as np
from PIL import Image, ImageDraw

from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2_imagenet.folders import below_datasets

CLASSES = ("alike", "unlike")
KINDS = ("disc", "square", "triangle", "cross")
SIDE, RADIUS = 160, 12
_CORNERS = np.array([[26, 26], [26, 134], [134, 26], [134, 134]])  # 108 pixels or more apart


def draw_pair(rng: np.random.Generator, alike: bool) -> Image.Image:
    """One picture: noise, and two shapes of random colours near two of its corners."""
    noise = rng.normal(110, 18, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    first = int(rng.integers(len(KINDS)))
    second = first if alike else (first + int(rng.integers(1, len(KINDS)))) % len(KINDS)
    places = rng.permutation(_CORNERS)[:2] + rng.integers(-10, 11, (2, 2))
    for kind, (x, y) in zip((first, second), places.tolist(), strict=True):
        color = tuple(int(value) for value in rng.choice([20, 235], 3))
        _draw(ImageDraw.Draw(picture), KINDS[kind], x, y, color)
    return picture


def _draw(draw: ImageDraw.ImageDraw, kind: str, x: int, y: int, color: tuple[int, ...]) -> None:
    r = RADIUS
    if kind == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif kind == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=color)
    elif kind == "triangle":
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=color)
    else:
        draw.rectangle((x - r, y - 4, x + r, y + 4), fill=color)
        draw.rectangle((x - 4, y - r, x + 4, y + r), fill=color)


def generate(folder: str, *, train: int = 4000, val: int = 1000, seed: int = 0) -> None:
    """Writes ``train`` and ``val`` with a folder for each class, half of the pictures in each.

    Raises:
        UsageError: the folder cannot be written to.
    """
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            name = CLASSES[number % 2]
            place = os.path.join(folder, split, name)
            try:
                os.makedirs(place, exist_ok=True)
                picture = draw_pair(rng, alike=name == "alike")
                picture.save(os.path.join(place, f"{number:05d}.png"))
            except OSError as error:
                raise UsageError(f"{place} cannot be written: {error.strerror}") from error


def main() -> None:
    """Writes the dataset below ``$DETECTRON2_DATASETS``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=4000, help="pictures (default 4000)")
    parser.add_argument("--val", type=int, default=1000, help="pictures (default 1000)")
    args = parser.parse_args()
    folder = below_datasets("pairs")
    generate(folder, train=args.train, val=args.val)
    print(f"{args.train} and {args.val} pictures: {folder}")


if __name__ == "__main__":
    with ending_in_one_line("generate"):
        main()

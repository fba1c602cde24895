"""The generated dataset: a small task in which a local window cannot know the answer."""

import os

import numpy as np
from PIL import Image

from dnl_d2.synthetic.drawing import draw_scene
from dnl_d2.synthetic.folders import SPLITS, dataset_parameters, toss, write_folder

_RECIPE = 1  # raise it when the pictures change
_COLOURS = 4


def generate_dataset(
    root: str,
    *,
    train: int = 512,
    val: int = 64,
    size: int | tuple[int, int] = 192,
    seed: int = 0,
    reach: float = 60.0,
    noise: float = 12.0,
) -> None:
    """Writes the dataset as ``root/{train,val}/*.png`` and ``root/{train,val}annot/*.png``.

    With ``root`` at ``$DETECTRON2_DATASETS/generated`` it is what ``generated_sem_seg_train`` and
    ``generated_sem_seg_val`` name. Every picture asks two questions:

    * Unary: two striped areas are of class texture_a or texture_b, both the same, depending on
      whether the beacon is black with a white rim or white with a black rim. The beacon itself has
      the class that it announces.
    * Pairwise: of each of four colours there may be a plain disc and a disc with a dark dot. Both
      have the class of their colour, but where a plain disc has its dotted twin somewhere in the
      picture, its class is paired.

    What a window can know at best: the layout is drawn before the answers, and the beacon's kind
    and the presence of every disc are fair coins of their own. The stripes are at least ``reach``
    pixels away from the beacon, and a disc from its twin (or a third of the picture's shorter side,
    if that is less). So a window that extends less than that from its middle recognises
    background, beacon, stripes and the colours of discs, but is right half of the time about the
    stripes, and about a plain disc. With b beacon and t striped pixels in a picture, a predictor
    that tosses coins there reaches an IoU of (2b + t) / (2b + 3t) on each texture, 40 % at the
    default sizes, 1/3 on paired, and 5/7 on each colour, where dotted discs are as many as plain
    ones: a mean of about 62 % over the eight classes. Always giving the same answer is no better.

    Picture i of a split depends on ``seed``, split, i and the drawing parameters alone, not on the
    number of pictures. In any four pictures from a multiple of 4 on, each beacon occurs twice and
    each colour with both discs, either one and none. The folder is written aside and then renamed;
    where it already holds these very parameters it is left as it is.

    Args:
        root: folder to write; replaced if it holds a generated dataset of other parameters.
        train: number of training pictures.
        val: number of validation pictures.
        size: height and width, or one number for both.
        seed: seed of all pictures.
        reach: pixels between a question and its answer.
        noise: standard deviation of the pixel noise, in grey values.

    Raises:
        UsageError: a number is out of its range, or ``root`` holds anything else.
    """
    parameters = dataset_parameters(
        _RECIPE, train=train, val=val, size=size, seed=seed, reach=reach, noise=noise
    )
    counts = {split + suffix: parameters[split] for split in SPLITS for suffix in ("", "annot")}
    write_folder(root, parameters, counts, _write_split)


def draw_example(
    index: int, *, split: str, size: tuple[int, int], seed: int, **drawing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws picture ``index`` of a split; arguments as in :func:`generate_dataset`.

    Args:
        index, split, size, seed: tell which picture.
        drawing: ``reach`` and ``noise``.

    Returns:
        image (H, W, 3) uint8 RGB and label (H, W) uint8.
    """
    key = (seed, SPLITS.index(split))
    kind, present = toss(key, index, couples=_COLOURS)
    rng = np.random.default_rng((*key, 1, index))
    return draw_scene(rng, size, beacon_kind=kind, present=present, **drawing)


def _write_split(folder: str, split: str, parameters: dict) -> None:
    images, labels = (os.path.join(folder, split + suffix) for suffix in ("", "annot"))
    os.makedirs(images)
    os.makedirs(labels)
    drawing = {key: parameters[key] for key in ("seed", "reach", "noise")}
    for index in range(parameters[split]):
        pair = draw_example(index, split=split, size=tuple(parameters["size"]), **drawing)
        for target, array in zip((images, labels), pair, strict=True):
            Image.fromarray(array).save(os.path.join(target, f"{index:05d}.png"), compress_level=1)

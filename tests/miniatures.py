"""Small datasets in the format in which the real ones are published, before any preparation.

The pictures show polygons whose colour tells their class, so that a small model can learn them.
Every builder writes below ``root``, which is then a ``$DETECTRON2_DATASETS``, and returns the label
maps that preparation must come to: uint8 with 255 for ignored, by the picture's name.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from scipy.io import savemat
from scipy.sparse import csc_matrix

Shape = tuple[int, list[tuple[int, int]]]  # index of a class, polygon
Truth = dict[str, np.ndarray]

# Colours of the five classes that a miniature shows, and of what it ignores.
SHADES = ((90, 90, 90), (220, 40, 40), (40, 200, 60), (50, 70, 230), (240, 220, 40), (10, 10, 10))
VOID = len(SHADES) - 1
_IGNORED = 255


def build_cityscapes(
    root: Path, *, train: int = 3, val: int = 2, test: int = 1, size: tuple[int, int] = (48, 96)
) -> Truth:
    """Polygons, label ids, instance ids and colours; the picture's name is ``CITY_000000_000019``.

    A license plate lies on every picture, which counts as what is below, and a group of cars.
    """
    names = ("road", "car", "sky", "person", "vegetation", "ego vehicle")
    train_ids = (0, 13, 10, 11, 8, _IGNORED)
    truth = {}
    for split, city, count in (
        ("train", "aachen", train), ("val", "munster", val), ("test", "berlin", test),
    ):  # fmt: skip
        images = _folder(root, "cityscapes/leftImg8bit", split, city)
        labels = _folder(root, "cityscapes/gtFine", split, city)
        for index in range(count):
            name = f"{city}_{index:06d}_000019"
            shapes = _scene(size, f"cityscapes/{name}")
            _paint(size, shapes, name).save(images / f"{name}_leftImg8bit.png")
            objects = [
                {"label": names[kind] + "group" * (names[kind] == "car"), "polygon": polygon}
                for kind, polygon in shapes
            ]
            objects.append({"label": "license plate", "polygon": [(5, 5), (9, 5), (9, 9), (5, 9)]})
            content = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
            stem = str(labels / f"{name}_gtFine_")
            Path(f"{stem}polygons.json").write_text(json.dumps(content))
            json2labelImg(f"{stem}polygons.json", f"{stem}labelIds.png", "ids")
            json2labelImg(f"{stem}polygons.json", f"{stem}color.png", "color")
            annotation = Annotation()
            annotation.fromJsonText(json.dumps(content))
            instances = np.asarray(createInstanceImage(annotation, "ids"))
            Image.fromarray(instances.astype(np.uint16)).save(f"{stem}instanceIds.png")
            truth[name] = _draw(size, shapes, train_ids)
    return truth


def build_ade20k(
    root: Path, *, train: int = 3, val: int = 2, size: tuple[int, int] = (40, 56)
) -> Truth:
    """Grey PNGs of 0 (other) and 1 to 150; the picture's name is ``ADE_train_00000001``."""
    raw = (1, 3, 5, 13, 150, 0)
    truth = {}
    for split, word, count in (("training", "train", train), ("validation", "val", val)):
        images = _folder(root, "ADEChallengeData2016/images", split)
        labels = _folder(root, "ADEChallengeData2016/annotations", split)
        for index in range(count):
            name = f"ADE_{word}_{index + 1:08d}"
            shapes = _scene(size, name)
            _paint(size, shapes, name).save(images / f"{name}.jpg", quality=95)
            Image.fromarray(_draw(size, shapes, raw)).save(labels / f"{name}.png")
            truth[name] = _draw(size, shapes, (0, 2, 4, 12, 149, _IGNORED))
    return truth


def build_voc(
    root: Path,
    *,
    train: int = 2,
    val: int = 2,
    extra: int = 2,
    size: tuple[int, int] = (40, 56),
) -> Truth:
    """VOC 2012 with palette PNGs, and SBD with ``*.mat`` files.

    SBD has ``extra`` pictures of its own, besides the first of VOC's training and of its validation
    pictures, with labels of its own that must not be used. Pictures are named ``2007_000000`` in
    VOC and ``2008_000000`` in SBD.
    """
    classes = (0, 1, 7, 15, 20, _IGNORED)
    base, sbd = root / "VOCdevkit/VOC2012", root / "benchmark_RELEASE/dataset"
    images, labels = _folder(base, "JPEGImages"), _folder(base, "SegmentationClass")
    mats = _folder(sbd, "cls")
    own = [f"2007_{index:06d}" for index in range(train + val)]
    theirs = [f"2008_{index:06d}" for index in range(extra)]
    truth = {}
    for name in own + theirs:
        shapes = _scene(size, name)
        _paint(size, shapes, name).save(images / f"{name}.jpg", quality=95)
        truth[name] = _draw(size, shapes, classes)
        if name in own:
            picture = Image.fromarray(truth[name])
            picture.putpalette(np.random.default_rng(0).bytes(768))
            picture.save(labels / f"{name}.png")
        else:
            truth[name][truth[name] == _IGNORED] = 0  # SBD has no void
            _save_sbd(mats / f"{name}.mat", truth[name])
    for name in (own[0], own[train]):
        _save_sbd(mats / f"{name}.mat", np.full(size, 3, np.uint8))
    lists = _folder(base, "ImageSets/Segmentation")
    _write_list(lists / "train.txt", own[:train])
    _write_list(lists / "val.txt", own[train:])
    _write_list(lists / "trainval.txt", own)
    _write_list(sbd / "train.txt", [own[0], *theirs[1:]])
    _write_list(sbd / "val.txt", [own[train], *theirs[:1]])
    return truth


def build_pascal_context(
    root: Path,
    *,
    train: int = 3,
    val: int = 2,
    size: tuple[int, int] = (40, 56),
    form: str = "mat",
) -> Truth:
    """VOC 2010 with ``trainval/*.mat`` or, for the ``form`` "json", ``trainval_merged.json``.

    The truth is that of 60 classes. One of the classes shown is not among the 59.
    """
    numbers = (360, 2, 65, 458, 1, 0)  # sky, aeroplane, cat, wood, accordion, none
    base = root / "VOCdevkit/VOC2010"
    images, lists = _folder(base, "JPEGImages"), _folder(base, "ImageSets/Main")
    names = [f"2008_{index:06d}" for index in range(train + val)]
    _write_list(lists / "train.txt", names[:train])
    _write_list(lists / "val.txt", names[train:])
    content = {"info": {}, "images": [], "annos_segmentation": [], "categories": []}
    truth = {}
    for index, name in enumerate(names):
        shapes = _scene(size, name)
        _paint(size, shapes, name).save(images / f"{name}.jpg", quality=95)
        truth[name] = _draw(size, shapes, (47, 1, 15, 59, 0, 0))
        if form == "mat":
            mats = _folder(base, "trainval")
            raw = _draw(size, shapes, numbers, np.uint16)
            savemat(mats / f"{name}.mat", {"LabelMap": raw}, do_compression=True)
        image = {"image_id": 2008000000 + index, "file_name": f"{name}.jpg", "height": size[0]}
        image |= {"width": size[1], "phase": "train" if index < train else "val"}
        content["images"].append(image)
        content["annos_segmentation"] += [
            _annotation(size, shape, numbers, image["image_id"], 100 * index + place)
            for place, shape in enumerate(shapes)
            if shape[0] != VOID
        ]
    if form == "json":
        (base / "trainval_merged.json").write_text(json.dumps(content))
    return truth


def _scene(size: tuple[int, int], seed: str) -> list[Shape]:
    """A background of class 0, a strip to ignore at the bottom, and shapes of the four others.

    The strip is drawn first, so that no mask has to leave a hole for it.
    """
    rng = np.random.default_rng(list(seed.encode()))
    height, width = size
    strip = height - max(2, height // 12)
    shapes = [
        (VOID, _box(0, strip, width - 1, height - 1)),
        (0, _box(0, 0, width - 1, strip - 1)),
    ]
    for kind in rng.permutation([1, 2, 3, 4, *rng.integers(1, 5, 2)]):
        left, top = (int(rng.integers(0, side * 2 // 3)) for side in (width, strip))
        right, bottom = left + width // 3, min(top + height // 3, strip - 1)
        box = _box(left, top, right, bottom)
        shapes.append((int(kind), box[:3] if rng.random() < 0.3 else box))
    return shapes


def _box(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _draw(
    size: tuple[int, int], shapes: Sequence[Shape], values: Sequence[int], dtype: type = np.uint8
) -> np.ndarray:
    picture = Image.new("I", size[::-1])
    for kind, polygon in shapes:
        ImageDraw.Draw(picture).polygon(polygon, fill=values[kind])
    return np.asarray(picture).astype(dtype)


def _paint(size: tuple[int, int], shapes: Sequence[Shape], seed: str) -> Image.Image:
    kinds = _draw(size, shapes, range(len(SHADES)))
    noise = np.random.default_rng(list(seed.encode())).normal(0, 6, (*size, 3))
    return Image.fromarray((np.array(SHADES)[kinds] + noise).clip(0, 255).astype(np.uint8))


def _save_sbd(path: Path, label: np.ndarray) -> None:
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = csc_matrix(label == index + 1)
    present = np.setdiff1d(label, [0])[:, None]
    struct = {"Boundaries": boundaries, "Segmentation": label, "CategoriesPresent": present}
    savemat(path, {"GTcls": struct}, do_compression=True)


def _annotation(
    size: tuple[int, int], shape: Shape, numbers: Sequence[int], image_id: int, index: int
) -> dict:
    mask = rle.encode(np.asfortranarray(_draw(size, [shape], [1] * len(SHADES))))
    return {
        "id": index,
        "image_id": image_id,
        "category_id": numbers[shape[0]],
        "iscrowd": 0,
        "area": int(rle.area(mask)),
        "bbox": rle.toBbox(mask).tolist(),
        "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
    }


def _folder(root: Path, *parts: str) -> Path:
    folder = Path(root).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_list(path: Path, names: Sequence[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names))


BUILDERS: dict[str, Callable[..., Truth]] = {
    "ade20k": build_ade20k,
    "cityscapes": build_cityscapes,
    "pascal_context": build_pascal_context,
    "voc": build_voc,
}

"""A sound file in COCO's form, and how annotation tools write the same otherwise."""

import copy

from pycocotools import mask as coco_mask

from tests.evaluation.coco_data import encode

SIZE = (60, 80)  # height, width
IDS = (7, 9, 12)  # of images
CLASSES = (3, 5)


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def sound():
    """Three images with three objects each, as COCO writes them."""
    images = [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in IDS]
    annotations = []
    for image in IDS:
        for place, side in enumerate((9, 14, 20)):
            x, y = 4 + 22 * place, 3 + image
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": CLASSES[place % 2],
                "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0,
                "segmentation": [square(x, y, side)],
            })  # fmt: skip
    categories = [{"id": c, "name": f"c{c}"} for c in CLASSES]
    return {"images": images, "annotations": annotations, "categories": categories}


def each(key, value):
    """Changes a key of all annotations: a value, or a function of number and annotation."""

    def change(form):
        for number, entry in enumerate(form["annotations"]):
            entry[key] = value(number, entry) if callable(value) else value

    return change


def without(key):
    def change(form):
        for entry in form["annotations"]:
            del entry[key]

    return change


def with_ids(key, reference, make):
    def change(form):
        for entry in form[key]:
            entry["id"] = make(entry["id"])
        for entry in form["annotations"]:
            entry[reference] = make(entry[reference])

    return change


def mixed_ids(form):
    """Texts in one place, numbers in the other."""
    for image in form["images"]:
        image["id"] = str(image["id"])
    form["images"][0]["id"] = 7


def sizes(make):
    def change(form):
        for image in form["images"]:
            image["height"], image["width"] = make(image["height"]), make(image["width"])

    return change


def packed(form):
    for entry in form["annotations"]:
        mask = coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], *SIZE))[..., 0]
        entry["segmentation"] = encode(mask)
        entry["segmentation"]["size"] = [60.0, "80"]


def deleted(form):
    empty = {"bbox": [0, 0, 0, 0], "segmentation": [], "area": 0}
    form["annotations"].append({**form["annotations"][0], **empty, "id": 99})


def listed_twice(form):
    form["images"] += copy.deepcopy(form["images"])


ODD = {
    "annotation ids from 0": each("id", lambda number, _: number),
    "negative annotation ids": each("id", lambda number, _: -number),
    "fractions as annotation ids": each("id", lambda number, _: number / 2),
    "texts as annotation ids": each("id", lambda number, _: f"{number}a"),
    "one annotation id": each("id", 5),
    "annotation ids null": each("id", None),
    "no annotation ids": without("id"),
    "texts as image ids": with_ids("images", "image_id", lambda n: f"img{n}"),
    "numbers in texts as image ids": with_ids("images", "image_id", str),
    "negative image ids": with_ids("images", "image_id", lambda n: -n),
    "mixed image ids": mixed_ids,
    "image ids with a point": with_ids("images", "image_id", float),
    "huge image ids": with_ids("images", "image_id", lambda n: 10**30 + n),
    "image id 0": with_ids("images", "image_id", lambda n: n - 7),
    "texts as category ids": with_ids("categories", "category_id", lambda n: f"class {n}"),
    "category id 0": with_ids("categories", "category_id", lambda n: n - 3),
    "mixed category ids": with_ids("categories", "category_id", lambda n: n if n == 3 else "x"),
    "sizes with a point": sizes(float),
    "sizes as texts": sizes(str),
    "boxes as texts": each("bbox", lambda _, entry: [str(v) for v in entry["bbox"]]),
    "iscrowd null": each("iscrowd", None),
    "iscrowd false": each("iscrowd", False),
    "iscrowd a text": each("iscrowd", "0"),
    "no iscrowd": without("iscrowd"),
    "area null": each("area", None),
    "no area": without("area"),
    "area zero": each("area", 0),
    "area a text": each("area", lambda _, entry: str(entry["area"])),
    "packed masks": packed,
    "images listed twice": listed_twice,
    "one name": lambda form: [category.update(name="x") for category in form["categories"]],
    "numbers as names": lambda form: [c.update(name=c["id"]) for c in form["categories"]],
    "ignore null": each("ignore", None),
    "ignore false": each("ignore", False),
    "fractions as image ids": with_ids("images", "image_id", lambda n: n + 0.5),
    "what deleted objects leave": deleted,
    "Windows paths": lambda form: [i.update(file_name=f"a\\{i['id']}.png") for i in form["images"]],
}

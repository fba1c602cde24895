"""Random truth and detections in COCO's form, with everything that is awkward about them."""

import contextlib
import copy
import io

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

CATEGORIES = (1, 3, 4, 8, 12)  # the last has no truth


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(mask):
    flat = mask.T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0] * int(flat[0]) + runs}


def shape_of(rng, kind, size, box):
    """A rectangle, two polygons, or a spotted mask with its run lengths packed or not."""
    x, y, w, h = box
    if kind == "rectangle":
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if kind == "polygons":
        angle = np.sort(rng.uniform(0, 2 * np.pi, 7))
        points = np.stack([x + w * (1 + np.cos(angle)) / 2, y + h * (1 + np.sin(angle)) / 2], 1)
        return [points.ravel().tolist(), (points / 2).ravel().tolist()]
    spots = rng.random(size) > 0.4
    mask = np.zeros(size, dtype=np.uint8)
    inside = np.s_[max(int(y), 0) : max(int(y + h), 0), max(int(x), 0) : max(int(x + w), 0)]
    mask[inside] = spots[inside]
    return encode(mask) if kind == "packed" else uncompressed(mask)


def points_of(rng, box, hidden):
    x, y, w, h = box
    across, down = rng.uniform(x, x + w + 1, 17), rng.uniform(y, y + h + 1, 17)
    seen = np.zeros(17) if hidden else rng.integers(0, 3, 17)
    return np.stack([across, down, seen], 1)


def make_truth(rng, image, number):
    height, width = image["height"], image["width"]
    w, h = rng.uniform(0, 0.8 * width) * (rng.random() > 0.1), rng.uniform(0, 0.8 * height)
    box = [float(rng.uniform(-3, width - w + 3)), float(rng.uniform(-3, height - h + 3)), w, h]
    crowd = rng.random() < 0.15
    kinds = ["unpacked"] if crowd else ["rectangle", "polygons", "packed"]
    points = points_of(rng, box, hidden=rng.random() < 0.2)
    return {
        "id": number, "image_id": image["id"], "category_id": int(rng.choice(CATEGORIES[:-1])),
        "bbox": box, "iscrowd": int(crowd), "area": float(w * h * rng.choice([0.7, 1, 40])),
        "segmentation": shape_of(rng, rng.choice(kinds), (height, width), box),
        "keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum()),
    }  # fmt: skip


def make_detection(rng, image, truths):
    """Near an object, or exactly on it, or anywhere; half of the scores have ties."""
    size = (image["height"], image["width"])
    if truths and rng.random() < 0.7:
        near = truths[rng.integers(len(truths))]
        box = np.maximum(np.array(near["bbox"]) + rng.normal(0, rng.choice([0, 1, 3]), 4), 0)
        category = near["category_id"] if rng.random() < 0.9 else int(rng.choice(CATEGORIES))
        points = np.array(near["keypoints"]) + rng.normal(0, rng.choice([0, 0.5, 3]), 51)
    else:
        box = rng.uniform(0, 60, 4)
        category, points = int(rng.choice(CATEGORIES)), rng.uniform(0, 100, 51)
    box = box.astype(np.float32).tolist()
    kind = rng.choice(["rectangle", "packed"])
    mask = shape_of(rng, kind, size, box)
    if kind == "rectangle":
        mask = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
        mask["counts"] = mask["counts"].decode()
    score = round(rng.random(), 1) if rng.random() < 0.5 else rng.random()
    return {
        "image_id": image["id"], "category_id": category, "bbox": box,
        "score": float(np.float32(score)), "segmentation": mask,
        "keypoints": points.astype(np.float32).tolist(),
    }  # fmt: skip


def make_dataset(seed, *, images=8, detections=30, first_id=1):
    """Truth as a JSON file has it, and results; some images lack the one, the other or both."""
    rng = np.random.default_rng(seed)
    entries, annotations, results = [], [], []
    for index in range(images):
        height, width = map(int, rng.integers(60, 130, 2))
        image = {"id": 3 * index + 5, "height": height, "width": width, "file_name": f"{index}.png"}
        entries.append(image)
        count = 0 if index % 4 == 3 else int(rng.integers(1, 12))
        start = first_id + len(annotations)
        truths = [make_truth(rng, image, start + n) for n in range(count)]
        annotations += truths
        count = (130, detections, 0)[index % 3]
        results += [make_detection(rng, image, truths) for _ in range(count)]
    categories = [{"id": c, "name": f"c{c}"} for c in CATEGORIES]
    return {"images": entries, "annotations": annotations, "categories": categories}, results


def predictions(truth, results):
    """Results as a model's output for each image."""
    for image in truth["images"]:
        found = [r for r in results if r["image_id"] == image["id"]]
        instances = Instances((image["height"], image["width"]))
        boxes = torch.tensor([r["bbox"] for r in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([r["score"] for r in found])
        instances.pred_classes = torch.tensor([CATEGORIES.index(r["category_id"]) for r in found])
        masks = [torch.from_numpy(coco_mask.decode(r["segmentation"]).copy()) for r in found]
        shape = (0, image["height"], image["width"])
        instances.pred_masks = torch.stack(masks).bool() if masks else torch.zeros(shape).bool()
        yield {"image_id": image["id"]}, {"instances": instances}


def evaluated(implementation, truth, results, task):
    """A COCOeval that has evaluated, accumulated and summarised."""
    with contextlib.redirect_stdout(io.StringIO()):
        results = copy.deepcopy(results)
        if task == "segm":  # as Detectron2 does, so that areas are those of masks
            for result in results:
                del result["bbox"]
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        scored = implementation(gt, gt.loadRes(results), task)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored

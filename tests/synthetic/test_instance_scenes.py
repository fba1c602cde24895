import colorsys
import json
import os
import runpy

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dnl_d2.data.datasets.generated import INSTANCE_COLORS
from dnl_d2.errors import UsageError
from dnl_d2.synthetic import drawing as scene
from dnl_d2.synthetic import generate_instances
from dnl_d2.synthetic import instance_scenes as generated_instances
from dnl_d2.synthetic.instance_scenes import draw_instances, outline

SMALL = {"train": 3, "val": 2, "size": (64, 96)}
DISCS = ("paired", "single", "dotted")


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """The validation split of default size, as pycocotools reads it."""
    root = tmp_path_factory.mktemp("generated_instances")
    generate_instances(str(root), train=1)
    return COCO(str(root / "annotations/instances_val.json"))


def test_detectron2_loads_it_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UsageError, match=r"tools/generate_dataset.py instances"):
        DatasetCatalog.get("generated_instances_train")
    generate_instances(str(tmp_path / "generated_instances"), **SMALL)
    for split in ("train", "val"):
        records = DatasetCatalog.get(f"generated_instances_{split}")
        assert len(records) == SMALL[split]
        for record in records:
            assert (record["height"], record["width"]) == (64, 96)
            assert Image.open(record["file_name"]).size == (96, 64)
            assert len(record["annotations"]) >= 3  # the beacon and two striped areas
        meta = MetadataCatalog.get(f"generated_instances_{split}")
        assert meta.thing_classes == list(INSTANCE_COLORS) and meta.evaluator_type == "coco"
        assert len(meta.thing_colors) == 7
        assert meta.json_file == str(
            tmp_path / f"generated_instances/annotations/instances_{split}.json"
        )
    assert os.listdir(tmp_path) == ["generated_instances"]  # nothing is left beside it


def test_annotations_agree_with_the_pixels(coco):
    """Polygons filled by pycocotools are the drawn masks to the pixel."""
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(INSTANCE_COLORS)
    for index in coco.getImgIds()[:16]:
        picture, drawn = draw_instances(index, split="val", size=(128, 128), seed=0)
        annotations = coco.imgToAnns[index]
        assert len(annotations) == len(drawn)
        for annotation, (name, mask) in zip(annotations, drawn, strict=True):
            assert coco.cats[annotation["category_id"]]["name"] == name
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
            assert annotation["area"] == mask.sum()
            image = Image.fromarray(mask)
            left, top, right, bottom = image.getbbox()
            assert annotation["bbox"] == [left, top, right - left, bottom - top]
        assert picture.shape == (128, 128, 3)
        assert sum(mask.astype(int) for _, mask in drawn).max() == 1, "things overlap"


def test_an_outline_runs_along_pixels():
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = mask[2, 1:5] = True
    corners = [2, 1, 2, 2, 1, 2, 1, 3, 5, 3, 5, 2, 3, 2, 3, 1]
    assert outline(mask) == corners


@pytest.mark.parametrize("index", range(12))
def test_classes_follow_from_what_is_elsewhere_in_the_picture(index):
    """Read off a picture without noise: the beacon's kind, and hue and dot of every disc."""
    picture, instances = draw_instances(
        index, split="train", size=(192, 192), seed=1, noise=0.0, couples=4
    )
    (beacon,) = [mask for name, mask in instances if name.startswith("beacon")]
    letter = "b" if _middle(picture, beacon).mean() > 128 else "a"
    textures = [name for name, _ in instances if name.startswith("texture")]
    assert textures == [f"texture_{letter}"] * 2
    assert [name for name, _ in instances if name.startswith("beacon")] == [f"beacon_{letter}"]

    discs = [(name, mask) for name, mask in instances if name in DISCS]
    assert len(discs) + 3 == len(instances)
    looks = [(_rim_hue(picture, mask), _middle(picture, mask).max() < 40) for _, mask in discs]
    assert len(set(looks)) == len(looks), "one plain and one dotted disc of a colour at most"
    for (name, _), (hue, dotted) in zip(discs, looks, strict=True):
        plain = "paired" if (hue, True) in looks else "single"
        assert name == ("dotted" if dotted else plain)


def test_nothing_but_the_evidence_differs(monkeypatch):
    """The same picture with other answers: only the beacon and the absent twin look different."""
    pictures = []
    for kind, present in ((0, [(True, True), (True, True)]), (1, [(True, False), (True, True)])):
        monkeypatch.setattr(generated_instances, "toss", lambda *_, c=(kind, present), **__: c)
        pictures.append(draw_instances(3, split="val", size=(128, 128), seed=0))
    (first, things), (second, others) = pictures
    (gone,) = [mask for name, mask in things[2:4] if name == "dotted"]
    evidence = gone | things[-1][1]
    np.testing.assert_array_equal(first[~evidence], second[~evidence])
    assert [name for name, _ in things] == [
        "texture_a", "texture_a", "paired", "dotted", "paired", "dotted", "beacon_a",
    ]  # fmt: skip
    assert [name for name, _ in others] == [
        "texture_b", "texture_b", "single", "paired", "dotted", "beacon_b",
    ]  # fmt: skip


def test_questions_are_far_from_their_answers():
    """A third of the side, also with the larger beacon."""
    for seed in range(20):
        layout = scene.draw_layout(
            np.random.default_rng(seed), (128, 128), couples=2, reach=60.0,
            beacon=generated_instances._BEACON,
        )  # fmt: skip
        gaps = [area.gap(layout.beacon) for area in layout.textures]
        assert min(gaps + [a.gap(b) for a, b in layout.couples]) > 0.3 * 128
        assert layout.beacon.radius == pytest.approx(28 * 128 / 192, rel=0.1)


@pytest.fixture(scope="module")
def coin_precision(coco):
    """AP by class of perfect masks whose scores are coins where a window cannot know; 8 tosses."""
    numbers = {cat["name"]: number for number, cat in coco.cats.items()}
    couples = [{"texture_a", "texture_b"}, {"paired", "single"}]
    tosses = []
    for seed in range(8):
        rng, guesses = np.random.default_rng(seed), []
        for annotation in coco.anns.values():
            name = coco.cats[annotation["category_id"]]["name"]
            for candidate in next((sorted(c) for c in couples if name in c), [name]):
                guess = {key: annotation[key] for key in ("image_id", "bbox")}
                guesses.append({**guess, "category_id": numbers[candidate], "score": rng.uniform()})
        evaluation = COCOeval(coco, coco.loadRes(guesses), "bbox")
        evaluation.params.iouThrs = [0.5]
        evaluation.evaluate()
        evaluation.accumulate()
        tosses.append(evaluation.eval["precision"][0, :, :, 0, -1].mean(0))
    return dict(zip(INSTANCE_COLORS, np.mean(tosses, 0), strict=True))


def test_stated_bound_of_a_window(coin_precision):
    """The figures of the docstring of generate_instances."""
    unknown = [coin_precision[name] for name in ("texture_a", "texture_b", "paired", "single")]
    known = [coin_precision[name] for name in ("beacon_a", "beacon_b", "dotted")]
    assert known == pytest.approx([1.0] * 3)
    assert np.mean(unknown) == pytest.approx(0.55, abs=0.02)
    assert np.mean(known + unknown) == pytest.approx(0.74, abs=0.02)


def test_command_writes_it(root, tmp_path, capsys):
    main = runpy.run_path(str(root / "tools/generate_dataset.py"))["main"]
    arguments = ["--root", str(tmp_path / "data"), "--train", "2", "--val", "1", "--size", "64"]
    main(["instances", *arguments])
    main(["sem_seg", *arguments])
    folders = tmp_path / "data/generated_instances", tmp_path / "data/generated"
    assert capsys.readouterr().out == "".join(f"{folder} is complete\n" for folder in folders)
    with open(folders[0] / "annotations/instances_train.json") as file:
        assert len(json.load(file)["images"]) == 2
    assert len(os.listdir(folders[1] / "trainannot")) == 2
    with pytest.raises(UsageError, match="size 8x8 must be at least 64x64"):
        main(["instances", *arguments[:-1], "8"])


def _middle(picture, mask):
    rows, columns = np.nonzero(mask)
    return picture[round(rows.mean()), round(columns.mean())]


def _rim_hue(picture, mask):
    """Which of four hues a disc has, 0.8 of its radius to the right of its middle."""
    rows, columns = np.nonzero(mask)
    x = round(columns.mean() + 0.4 * (np.ptp(columns) + 1))
    return round(4 * colorsys.rgb_to_hsv(*(picture[round(rows.mean()), x] / 255))[0]) % 4

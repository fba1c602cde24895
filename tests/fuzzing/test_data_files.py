"""Pictures, label maps, annotations, lists and configs, damaged: an error in a line, or read."""

import io
import json
import os

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image
from scipy.io import savemat

from dnl_d2.config.loading import load_config_file
from dnl_d2.data import register_coco_dataset
from dnl_d2.data.datasets.folder import load_sem_seg_folder
from dnl_d2.data.images import read_image
from dnl_d2.data.labels import read_label
from dnl_d2.preparation.mat import read_mat
from tests.data.coco_form import content as coco
from tests.fuzzing.mutations import damaged, odd_values, outcome

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
LABEL = (PIXELS[..., 0] % 5).astype(np.uint8)
NAME = "fuzzed_coco"


def picture(kind: str, array: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def check(path, content, number, seed, read) -> None:
    for name, changed in damaged(content, number, seed):
        path.write_bytes(changed)
        outcome(lambda: read(str(path)), str(path), name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_damaged_pictures(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    check(path, picture(kind), 35, kind, lambda path: read_image(path, "RGB"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_damaged_label_maps(kind, tmp_path):
    check(tmp_path / "a.png", picture(kind, LABEL), 35, f"label {kind}", read_label)


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_label_maps_of_matlab(packed, tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"LabelMap": LABEL}, do_compression=packed)
    content = path.read_bytes()
    check(path, content, 35, f"mat {packed}", lambda path: read_mat(path, "LabelMap"))


def coco_reader(path):
    register_coco_dataset(NAME, images=str(path.parent), json=str(path))
    return lambda: DatasetCatalog.get(NAME)


def test_damaged_annotations(tmp_path):
    path = tmp_path / "a.json"
    read = coco_reader(path)
    check(path, json.dumps(coco()).encode(), 70, "coco", lambda _: read())


def test_annotations_with_odd_values(tmp_path):
    path = tmp_path / "a.json"
    read = coco_reader(path)
    for name, changed in odd_values(coco(), 150, "coco"):
        path.write_text(json.dumps(changed))
        outcome(read, str(path), name)


def test_damaged_lists_of_stems(tmp_path):
    for number in range(3):
        Image.fromarray(PIXELS).save(tmp_path / f"{number}.png")
    path = tmp_path / "list.txt"
    content = "".join(f"{number}\n" for number in range(3)).encode() * 20
    folder = str(tmp_path)
    check(path, content, 70, "list", lambda path: load_sem_seg_folder(folder, None, path))


CONFIG = {
    "VERSION": 2,
    "MODEL": {"META_ARCHITECTURE": "ContextSegmentor", "PIXEL_MEAN": [1.0, 2.0, 3.0]},
    "SOLVER": {"BASE_LR": 0.01, "STEPS": [1, 2], "MAX_ITER": 10},
    "INPUT": {"CROP": {"SIZE": [64, 64]}, "MIN_SIZE_TRAIN": [32, 64]},
    "DATASETS": {"TRAIN": ["a"], "TEST": ["b"]},
}


def test_damaged_configs(tmp_path):
    path = tmp_path / "a.yaml"
    check(path, yaml.safe_dump(CONFIG).encode(), 42, "yaml", load_config_file)


def test_configs_with_odd_values(tmp_path):
    path = tmp_path / "a.yaml"
    for name, changed in odd_values(CONFIG, 42, "yaml"):
        path.write_text(yaml.safe_dump(changed), encoding="utf-8", errors="surrogatepass")
        outcome(lambda: load_config_file(str(path)), str(path), name)


def test_nothing_is_left_behind(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco())[:-5])
    outcome(coco_reader(path), str(path), "cut")
    assert os.listdir(tmp_path) == ["a.json"]

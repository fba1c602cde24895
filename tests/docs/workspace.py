"""The folder that a page's blocks run in: a checkout, with what a reader would have beside it."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from omegaconf import DictConfig
from PIL import Image

from dnl_d2.engine import load_config
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_model
from dnl_d2.synthetic import generate_dataset, generate_instances
from tests.docs.pages import ROOT

LINKED = (
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "dnl_d2", "docs", "projects",
    "pyproject.toml", "requirements", "tools",
)  # fmt: skip
# Weights by file: random, but the same each time, for these configs.
WEIGHTS = {
    "dnl.pth": "camvid/dnl_r18w32-d8_4k_camvid-240x320.yaml",
    "detector.pth": "generated/mask_rcnn_r18w32_fpn_gc_r4_c3-c5_300_generated-instances.yaml",
    "output/demo/dnl/model_final.pth": "generated/dnl_r18w32_800_generated-192x192.py",
    "output/demo/fcn/model_final.pth": "generated/fcn_r18w32_800_generated-192x192.py",
}


def prepare(folder: Path) -> None:
    """Fills an empty folder; ``datasets`` in it is meant for ``$DETECTRON2_DATASETS``."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    datasets = folder / "datasets"
    generate_dataset(str(datasets / "generated"), train=4, val=3, size=96, reach=20.0)
    generate_instances(str(datasets / "generated_instances"), train=8, val=2, size=96, reach=20.0)
    shutil.copytree(datasets / "generated", folder / "output/demo/datasets/generated")
    _own_data(folder / "data", datasets)
    _camvid(datasets)
    _pictures(folder)
    for name, config in WEIGHTS.items():
        save_weights(str(ROOT / "configs" / config), folder / name)


def save_weights(config: str, path: Path) -> None:
    """Random weights of a config's model, of which every class is predicted somewhere."""
    torch.manual_seed(0)
    cfg = load_config(config)
    model = _on_cpu(cfg)
    for name, value in model.state_dict().items():
        if "predictor.bias" in name or "cls_score.bias" in name:
            value.normal_()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, path)


def _on_cpu(cfg: CfgNode | DictConfig) -> torch.nn.Module:
    if isinstance(cfg, DictConfig):
        return instantiate(cfg.model)
    cfg.MODEL.DEVICE = "cpu"
    return build_model(read_config(cfg, train=False))


def _own_data(folder: Path, datasets: Path) -> None:
    """Label maps of two classes in two folders, and one file of boxes and masks."""
    for split, source in (("train", "train"), ("val", "val")):
        shutil.copytree(datasets / "generated" / source, folder / split)
        (folder / f"{split}_labels").mkdir()
        for file in (datasets / "generated" / f"{source}annot").iterdir():
            label = np.asarray(Image.open(file))
            two = np.where(label == 255, 255, label > 0).astype(np.uint8)
            Image.fromarray(two).save(folder / f"{split}_labels" / file.name)
    instances = datasets / "generated_instances"
    shutil.copytree(instances / "train", folder / "images")
    shutil.copyfile(instances / "annotations/instances_train.json", folder / "all.json")


def _camvid(datasets: Path) -> None:
    rng = np.random.default_rng(1)
    for split, count in (("train", 4), ("val", 2)):
        for kind in (split, f"{split}annot"):
            (datasets / "camvid" / kind).mkdir(parents=True)
        for number in range(count):
            label = np.kron(rng.integers(0, 12, (9, 12)), np.ones((8, 8))).astype(np.uint8)
            image = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
            Image.fromarray(label).save(datasets / f"camvid/{split}annot/{number}.png")
            Image.fromarray(image).save(datasets / f"camvid/{split}/{number}.png")


def _pictures(folder: Path) -> None:
    import cv2

    files = sorted((folder / "datasets/generated/train").glob("*.png"))
    (folder / "holiday").mkdir()
    for name, file in zip(("photo.jpg", "holiday/a.jpg", "holiday/b.jpg"), files, strict=False):
        Image.open(file).resize((160, 120)).save(folder / name)
    video = cv2.VideoWriter(
        os.fspath(folder / "ride.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (160, 120)
    )
    for file in files[:2]:
        video.write(cv2.resize(cv2.imread(os.fspath(file)), (160, 120)))
    video.release()

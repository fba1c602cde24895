#!/usr/bin/env python
"""Trains the demo's small model with each block in turn and draws what the blocks attend to.

Writes ``docs/blocks/NAME.png``. A model that is in ``--output`` already is not trained again.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import numpy as np
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dnl_d2.data import read_label  # noqa: E402
from dnl_d2.engine import load_config, run  # noqa: E402
from dnl_d2.modeling import AsymmetricHead  # noqa: E402
from dnl_d2.prediction import Predictor  # noqa: E402
from dnl_d2.synthetic import generate_dataset  # noqa: E402
from dnl_d2.visualization import color_label, draw_rows  # noqa: E402

DATASET = "generated_sem_seg_val"
CONFIG = ROOT / "configs/generated/dnl_r18w32_800_generated-192x192.py"
STRIPES, DISCS = ("texture_a", "texture_b"), ("paired",)
# Which maps of a model's head are drawn on which page, by title.
PAGES = {
    "nl": ("nl", {("context_block", "pairwise"): "pairwise (of +)"}),
    "snl": ("snl", {("context_block", "unary"): "unary"}),
    "gc": ("gc", {("context_block", "unary"): "unary"}),
    "dnl": (
        "dnl",
        {
            ("context_block", "whitened"): "pairwise, whitened (of +)",
            ("context_block", "unary"): "unary",
        },
    ),
    "apnb": ("ann", {("context", "pairwise"): "pairwise (of +)"}),
    "afnb": ("ann", {("fusion", "pairwise"): "pairwise (of +)"}),
}


def main() -> None:
    """Trains what is missing, then draws every page's picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/block_maps", help="folder of the models")
    parser.add_argument("--iterations", type=int, default=600, help="training steps per model")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=PAGES, metavar="NAME")
    args = parser.parse_args()
    data = Path(args.output, "datasets").absolute()
    os.environ["DETECTRON2_DATASETS"] = str(data)
    generate_dataset(str(data / "generated"), size=192)
    models = {}
    for page in args.pages:
        method, titles = PAGES[page]
        if method not in models:
            models[method] = trained(method, args)
        draw(ROOT / f"docs/blocks/{page}.png", models[method], titles)


def trained(method: str, args: argparse.Namespace) -> Predictor:
    """The model of a method, trained now or before."""
    cfg = load_config(str(CONFIG), [f"train.max_iter={args.iterations}", "train.device=cpu"])
    cfg.train.output_dir = os.path.join(args.output, method)
    cfg.train.checkpointer.period = args.iterations
    put_block(cfg.model, method)
    weights = os.path.join(cfg.train.output_dir, "model_final.pth")
    if not os.path.isfile(weights):
        flags = argparse.Namespace(
            eval_only=False, resume=False, overwrite=True, config_file=str(CONFIG)
        )
        figures = run(cfg, flags)["sem_seg"]
        print(f"{method}: mIoU {figures['mIoU']:.1f}", flush=True)
        for name in ("fvcore", "detectron2", "dnl_d2"):  # one run's log is not the next one's
            logging.getLogger(name).handlers.clear()
    return Predictor(cfg, weights=weights, device="cpu")


def put_block(model: dict, method: str) -> None:
    """The block of a method in the place of DNL's in the demo's model."""
    if method != "ann":
        blocks = LazyConfig.load(str(ROOT / "configs/common/blocks.py"))
        if method != "dnl":  # which has the demo's temperature
            model.sem_seg_head.context_block = blocks[method]
        return
    head = model.sem_seg_head
    model.backbone.out_features = ["res2", "res3"]
    shapes = dict(head.input_shape, res2=dict(head.input_shape.res3, channels=32, stride=4))
    model.sem_seg_head = L(AsymmetricHead)(
        input_shape=shapes,
        in_features=["res2", "res3"],
        channels=head.channels,
        project_channels=head.channels // 2,
        num_classes=head.num_classes,
        loss=head.loss,
        norm=head.norm,
    )


def draw(path: Path, predict: Predictor, titles: dict[tuple[str, str], str]) -> None:
    """Two positions of one picture, or where all positions share the map two pictures."""
    meta, rows, queries = MetadataCatalog.get(DATASET), [], []
    shared = {term for _, term in titles} == {"unary"}
    for number, names in ((3, STRIPES), (1 if shared else 3, DISCS)):
        record = DatasetCatalog.get(DATASET)[number]
        label = read_label(record["sem_seg_file_name"])
        query = inside(label, [meta.stuff_classes.index(name) for name in names])
        seen = predict.attention(record["file_name"])
        panels = {
            "image": seen.image,
            "truth": color_label(label, meta.stuff_colors),
            "prediction": color_label(np.asarray(seen.prediction), meta.stuff_colors),
        }
        for (block, term), title in titles.items():
            panels[title] = seen.overlay(f"sem_seg_head.{block}", term, pixel=query)
        rows.append(panels)
        queries.append(query)
    legend = dict(zip(meta.stuff_classes, meta.stuff_colors, strict=True))
    draw_rows(str(path), rows, queries=queries, legend=legend)
    picture = Image.open(path).convert("RGB")
    picture.quantize(64, Image.Quantize.MAXCOVERAGE, kmeans=4).save(path, optimize=True)


def inside(label: np.ndarray, classes: list[int]) -> tuple[int, int]:
    """The pixel of these classes that is deepest inside of them."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(np.isin(label, classes), 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column)


if __name__ == "__main__":
    main()

"""LVIS: a missing package is told; with the package, detections that are the truth score 100."""

import json
import sys

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.lvis import register_lvis_instances
from detectron2.structures import Boxes, Instances

from dnl_d2.errors import UsageError
from dnl_d2.evaluation import build_evaluator

NAME = "evaluation_test_lvis_v1"
SQUARE = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]


@pytest.fixture
def dataset(tmp_path):
    images = [
        {
            "id": n, "height": 40, "width": 60, "coco_url": f"http://x/val2017/{n}.jpg",
            "neg_category_ids": [2], "not_exhaustive_category_ids": [],
        }
        for n in (1, 2)
    ]  # fmt: skip
    annotations = [
        {
            "id": n, "image_id": n, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0],
            "area": 400.0, "segmentation": [SQUARE],
        }
        for n in (1, 2)
    ]  # fmt: skip
    categories = [{"id": n, "name": f"c{n}", "frequency": "f"} for n in (1, 2)]
    path = tmp_path / "lvis.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    register_lvis_instances(NAME, {}, str(path), f"{tmp_path}/")
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_a_missing_package_is_told(dataset, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == "lvis"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(UsageError, match="pip install --no-deps lvis"):
        build_evaluator(dataset, str(tmp_path))


def test_the_truth_scores_100(dataset, tmp_path):
    pytest.importorskip("lvis")
    evaluator = build_evaluator(dataset, str(tmp_path))
    evaluator.reset()
    for image in (1, 2):
        instances = Instances((40, 60))
        instances.pred_boxes = Boxes(torch.tensor([[5.0, 5, 25, 25], [0, 0, 3, 3]]))
        instances.scores, instances.pred_classes = torch.tensor([0.9, 0.5]), torch.tensor([0, 1])
        instances.pred_masks = torch.zeros(2, 40, 60, dtype=torch.bool)
        instances.pred_masks[0, 5:25, 5:25] = True
        instances.pred_masks[1, :3, :3] = True
        evaluator.process([{"image_id": image}], [{"instances": instances}])
    figures = evaluator.evaluate()
    assert figures["bbox"]["AP"] == figures["segm"]["AP"] == pytest.approx(100)
    assert (tmp_path / dataset / "lvis_instances_results.json").is_file()

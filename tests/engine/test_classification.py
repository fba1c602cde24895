"""A classifier of whole images is a run like any other."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from dnl_d2.engine import multi_step, run
from dnl_d2.engine.from_lazy import from_lazy
from dnl_d2.errors import UsageError
from dnl_d2.evaluation import build_evaluator
from tests.engine.runs import environment  # noqa: F401

NAMES = ("classified_train", "classified_val")


class Brightness(nn.Module):
    """Tells dark images from bright ones."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.classifier = nn.Linear(1, num_classes)

    def forward(self, inputs):
        means = torch.stack([x["image"].mean() for x in inputs])[:, None]
        logits = self.classifier(means)
        if not self.training:
            return [{"scores": row} for row in logits]
        labels = torch.tensor([x["category_id"] for x in inputs])
        return {"loss": nn.functional.cross_entropy(logits, labels)}


def read(record):
    pixels = np.asarray(Image.open(record["file_name"]), np.float32) / 255
    return {**record, "image": torch.from_numpy(pixels)}


@pytest.fixture
def classified(save):
    records = []
    for number in range(8):
        path = save(f"{number}.png", np.full((4, 4), 255 * (number % 2), np.uint8))
        records.append({"file_name": str(path), "category_id": number % 2})
    for name in NAMES:
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(classes=["dark", "bright"], evaluator_type="classification")
    yield
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(folder):
    def dataset(name):
        return L(get_detection_dataset_dicts)(names=name, filter_empty=False)

    return DictConfig(
        {
            # A name that is also that of Detectron2's dense detectors.
            "model": L(Brightness)(num_classes=2),
            "dataloader": {
                "train": L(build_detection_train_loader)(
                    dataset=dataset(NAMES[0]),
                    mapper=L(lambda: read)(),
                    total_batch_size=4,
                    aspect_ratio_grouping=False,
                    num_workers=0,
                ),
                "test": L(build_detection_test_loader)(
                    dataset=dataset(NAMES[1]), mapper=L(lambda: read)(), num_workers=0
                ),
                "evaluator": L(build_evaluator)(
                    dataset_name=NAMES[1], output_dir=f"{folder}/inference"
                ),
            },
            "optimizer": L(torch.optim.SGD)(params=L(parameters)(), lr=10.0),
            "lr_multiplier": L(multi_step)(milestones=[15], max_iter=20),
            "train": {
                "output_dir": str(folder),
                "device": "cpu",
                "max_iter": 20,
                "eval_period": 10,
                "log_period": 5,
            },
        },
        flags={"allow_objects": True},
    )


def parameters(model):
    return model.parameters()


def test_another_number_of_classes_is_refused_before_training(
    classified,
    tmp_path,
    environment,  # noqa: F811
):
    cfg = config(tmp_path / "out")
    cfg.model.num_classes = 3
    with pytest.raises(UsageError, match=r"num_classes is 3, and dataset classified_train has 2"):
        run(cfg, Namespace(resume=False, eval_only=False))


def test_what_is_to_be_evaluated_is_read_before_training(
    classified,
    tmp_path,
    environment,  # noqa: F811
):
    cfg = config(tmp_path / "out")
    MetadataCatalog.get(NAMES[1]).classes.append("grey")
    with pytest.raises(UsageError, match=r"num_classes is 2, and dataset classified_val has 3"):
        run(cfg, Namespace(resume=False, eval_only=False))
    MetadataCatalog.get(NAMES[1]).classes[:] = ["grey"]
    with pytest.raises(UsageError, match=r"classified_val has no classes to tell apart"):
        run(cfg, Namespace(resume=False, eval_only=False))

    def nowhere():
        raise UsageError("there is no such folder")

    cfg.dataloader.test.mapper = L(nowhere)()
    with pytest.raises(UsageError, match="there is no such folder"):
        run(cfg, Namespace(resume=False, eval_only=False))
    cfg = config(tmp_path / "out")
    DatasetCatalog.remove(NAMES[1])
    DatasetCatalog.register(NAMES[1], nowhere)
    with pytest.raises(UsageError, match="there is no such folder"):
        run(cfg, Namespace(resume=False, eval_only=False))
    assert not [*(tmp_path / "out").glob("*.pth")]


def test_it_trains_evaluates_and_keeps_the_best(classified, tmp_path, environment):  # noqa: F811
    cfg = config(tmp_path / "out")
    spec = from_lazy(cfg, train=True)
    assert not spec.task.is_known and spec.eval_pictures == 0
    results = run(cfg, Namespace(resume=False, eval_only=False))
    assert results["classification"] == {"top1": 100.0}
    assert (tmp_path / "out/model_best.pth").is_file() and (tmp_path / "out/curves.png").is_file()
    written = tmp_path / "out/inference" / NAMES[1] / "classification_evaluation.json"
    assert json.loads(written.read_text())["images"] == 8

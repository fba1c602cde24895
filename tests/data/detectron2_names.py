"""A fresh process: what Detectron2's dataset names give before and after the import of dnl_d2.

Called with the path of a JSON file to write; ``$DETECTRON2_DATASETS`` holds prepared miniatures.
"""

import importlib
import json
import pkgutil
import sys
import tempfile

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.structures import Instances

SEMANTIC = {"cityscapes_fine_sem_seg_train": 19, "ade20k_sem_seg_train": 150}
INSTANCES = "cityscapes_fine_instance_seg_train"


def registered():
    metadata = {name: dict(vars(MetadataCatalog.get(name))) for name in MetadataCatalog.list()}
    return dict(DatasetCatalog), metadata


def load(name):
    try:
        return DatasetCatalog.get(name)
    except ImportError as error:
        return f"{type(error).__name__}: {error}"


def semantic_figures(name, records, folder):
    """The check before training, and the evaluation of the truth."""
    from dnl_d2.data import read_label
    from dnl_d2.evaluation import build_evaluator
    from dnl_d2.validation.splits import check_datasets
    from dnl_d2.validation.task import Task

    task = Task(num_classes=SEMANTIC[name])
    check_datasets([name], task=task, max_files=10, what="DATASETS.TRAIN")
    evaluator = build_evaluator(name, folder)
    evaluator.reset()
    for record in records:
        label = torch.as_tensor(read_label(record["sem_seg_file_name"])).long()
        scores = torch.nn.functional.one_hot(label % 255, task.num_classes).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": scores.float()}])
    return evaluator.evaluate()["sem_seg"]["mIoU"]


def instance_figures(records, folder):
    """The same for objects; nothing is predicted."""
    from dnl_d2.evaluation import build_evaluator
    from dnl_d2.validation.instances import InstanceTask
    from dnl_d2.validation.splits import check_datasets
    from dnl_d2.validation.task import Task

    task = InstanceTask(8, "", True, "", get_cfg().INPUT.MASK_FORMAT, "INPUT.MASK_FORMAT")
    check_datasets([INSTANCES], task=Task(instances=task), max_files=10, what="DATASETS.TRAIN")
    evaluator = build_evaluator(INSTANCES, folder)
    evaluator.reset()
    for record in records:
        found = Instances((record["height"], record["width"]), scores=torch.zeros(0))
        found.pred_classes, found.pred_masks = torch.zeros(0).long(), torch.zeros(0, 1, 1).bool()
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["segm"]["AP"]


def main(path):
    names = (*SEMANTIC, INSTANCES)
    loaders, metadata = registered()
    records = {name: load(name) for name in names}

    import dnl_d2

    for module in pkgutil.walk_packages(dnl_d2.__path__, "dnl_d2."):
        importlib.import_module(module.name)
    dnl_d2.add_dnl_config(get_cfg())

    now_loaders, now_metadata = registered()
    after = {name: load(name) for name in names}
    result = {
        "names": list(loaders),
        "ours": sorted(set(now_loaders) - set(loaders)),
        "other loader": [n for n, loader in loaders.items() if now_loaders.get(n) is not loader],
        "other metadata": [n for n, known in metadata.items() if now_metadata.get(n) != known],
        "unreadable": {n: found for n, found in records.items() if isinstance(found, str)},
        "other records": [n for n in names if after[n] != records[n]],
        "figures": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, found in records.items():
            if isinstance(found, str):
                continue
            if name == INSTANCES:
                cfg = get_cfg()
                cfg.MODEL.MASK_ON = True
                mapper = DatasetMapper(cfg, is_train=True)
                result["masks"] = [type(mapper(r)["instances"].gt_masks).__name__ for r in found]
                result["figures"][name] = instance_figures(found, folder)
            else:
                result["figures"][name] = semantic_figures(name, found, folder)
    with open(path, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1])

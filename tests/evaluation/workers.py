"""What the processes of ``test_processes.py`` run, where they can import it."""

import json
import logging
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm

from dnl_d2.data import register_coco_dataset
from dnl_d2.evaluation import EVALUATORS
from tests.evaluation.coco_data import make_dataset, predictions
from tests.evaluation.sem_seg_data import CLASSES, evaluate, registered

KINDS = ("sem_seg", "cityscapes_sem_seg", "coco")


def evaluate_shares(folder: Path, records: list[dict], counts: list[int]) -> None:
    """Evaluates this process's share of the first images, by each of several numbers of these.

    It writes what it gets to ``<folder>/<images>-of-<processes>/<rank>/<kind>.json``.
    """
    if comm.get_world_size() > 1:
        logging.disable()
    for count in counts:
        numbers = list(InferenceSampler(count))
        own = folder / f"{count}-of-{comm.get_world_size()}" / str(comm.get_rank())
        own.mkdir(parents=True)
        with registered("processes_test", records[:count], classes=CLASSES) as name:
            for kind in KINDS[:2]:
                evaluator = EVALUATORS[kind](name, output_dir=str(own / kind))
                results = evaluate(evaluator, [records[i] for i in numbers], numbers)
                _write(own / f"{kind}.json", results, numbers)
        _write(own / "coco.json", _evaluate_boxes_and_masks(own, count, numbers), numbers)


def _evaluate_boxes_and_masks(own: Path, count: int, numbers: list[int]) -> dict | None:
    truth, found = make_dataset(seed=1, images=count)
    (own / "truth.json").write_text(json.dumps(truth))
    register_coco_dataset("processes_test", images=str(own), json=str(own / "truth.json"))
    try:
        evaluator = EVALUATORS["coco"]("processes_test", output_dir=str(own / "coco"))
        evaluator.reset()
        outputs = list(predictions(truth, found))
        for number in numbers:
            record, output = outputs[number]
            evaluator.process([record], [output])
        return evaluator.evaluate()
    finally:
        DatasetCatalog.remove("processes_test")
        MetadataCatalog.remove("processes_test")


def _write(path: Path, results: dict | None, numbers: list[int]) -> None:
    with open(path, "w") as file:
        json.dump({"results": results or None, "images": numbers}, file)

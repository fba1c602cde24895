"""What the processes of ``test_processes.py`` run, where they can import it."""

import json
import logging
import os

import torch
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm

from dnl_d2.evaluation import EVALUATORS
from tests.evaluation.sem_seg_data import CLASSES, evaluate, registered
from tests.processes import leave


def evaluate_part(rank: int, world: int, records: list[dict], folder: str) -> None:
    """Evaluates a process's share, and writes what it got to ``<folder>/<rank>/<kind>.json``."""
    if world > 1:
        logging.disable()
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", world_size=world, rank=rank
        )
        comm.create_local_process_group(world)
    numbers = list(InferenceSampler(len(records)))
    with registered("processes_test", records, classes=CLASSES) as name:
        for kind in ("sem_seg", "cityscapes_sem_seg"):
            own = os.path.join(folder, str(rank), kind)
            evaluator = EVALUATORS[kind](name, output_dir=own)
            results = evaluate(evaluator, [records[i] for i in numbers], numbers)
            with open(f"{own}.json", "w") as file:
                json.dump({"results": results, "images": numbers}, file)
    if world > 1:
        leave()

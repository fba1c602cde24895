"""Cityscapes: the official figures, and label maps ready to be submitted."""

import io
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.cityscapes_script import CityscapesScript
from dnl_d2.evaluation.confusion_report import prepare_folder
from dnl_d2.evaluation.sem_seg import SemSegEvaluator, check_scores
from dnl_d2.files import write_bytes

_logger = logging.getLogger(__name__)

_TRAIN_IDS, _LABEL_IDS = "_labelTrainIds.png", "_labelIds.png"
_INSTANCE_IDS = "_instanceIds.png"


class CityscapesSemSegEvaluator(DatasetEvaluator):
    """Writes predictions in official label ids and scores them with the official script.

    The figures are those of :class:`SemSegEvaluator` plus the script's ``IoU, iIoU, IoU_sup,
    iIoU_sup``, as Detectron2's evaluator of this name gives them; ``mIoU`` and ``IoU-<class>`` are
    the script's too. (It counts a class that is predicted but nowhere labelled as 0, Detectron2
    leaves it out.) What lies beside the records' ``*_gtFine_labelTrainIds.png`` decides:

    - ``*_labelIds.png`` and ``*_instanceIds.png``: all of it;
    - ``*_labelIds.png`` alone: without iIoU and iIoU_sup;
    - neither: the figures of :class:`SemSegEvaluator` on train ids;
    - no label at all, or none with a pixel to count, as in the test split: only the submission.

    Each process counts what it wrote and the counts are summed, so that no folder has to be
    shared.

    Args:
        dataset_name: a registered dataset of the 19 classes.
        output_dir: gets the folder ``submission`` with one ``*_pred.png`` per image, and the files
            of :class:`SemSegEvaluator`.

    Raises:
        UsageError: other classes, an empty dataset, images of one name, some labels missing, or no
            cityscapesscripts.
    """

    def __init__(self, dataset_name: str, *, output_dir: str):
        self._name = dataset_name
        self._ids = _label_ids(dataset_name)
        records = DatasetCatalog.get(dataset_name)
        if not records:
            raise UsageError(f"dataset {dataset_name} is empty: there is nothing to evaluate")
        self._folder = os.path.join(output_dir, "submission")
        self._files = _prediction_files(records)
        self._truth = _find_truth(dataset_name, records)
        self._sem_seg = (
            SemSegEvaluator(dataset_name, output_dir=output_dir) if self._truth else None
        )
        self._script: CityscapesScript | None = None

    def reset(self) -> None:
        """Starts anew: removes this split's predictions of an earlier run.

        Raises:
            UsageError: nothing can be written to the output folder, or processes find different
                labels.
        """
        if len(set(comm.all_gather(self._truth))) > 1:
            raise UsageError(f"dataset {self._name}: not every machine has the same label files")
        prepare_folder(self._folder)
        for file in self._files.values():
            Path(self._folder, file).unlink(missing_ok=True)
        comm.synchronize()  # where the folder is shared, nobody removes what another has written
        if self._sem_seg is not None:
            self._sem_seg.reset()
        if _LABEL_IDS in self._truth:
            self._script = CityscapesScript(instances=_INSTANCE_IDS in self._truth)

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict[str, Tensor]]) -> None:
        """Writes and counts one batch; see :meth:`SemSegEvaluator.process`."""
        for record, output in zip(inputs, outputs, strict=True):
            name, scores = record["file_name"], output["sem_seg"]
            check_scores(name, scores, len(self._ids))
            prediction = self._write(name, scores)
            if self._script is not None and self._sem_seg is not None:
                truth = self._sem_seg.label_of(name).removesuffix(_TRAIN_IDS) + _LABEL_IDS
                matrix = self._script.add(prediction, truth)
                counts = matrix[np.ix_(self._ids, self._ids)].astype(np.int64)
                self._sem_seg.count(name, counts)
        if self._sem_seg is not None and self._truth == (_TRAIN_IDS,):
            self._sem_seg.process(inputs, outputs)

    def evaluate(self) -> OrderedDict | None:
        """``{"sem_seg": figures}`` in the main process, None in others; empty without labels."""
        folders = comm.gather(self._folder)
        official = {} if self._script is None else self._script.scores()
        figures = {} if self._sem_seg is None else self._sem_seg.figures()
        if not comm.is_main_process():
            return None
        _logger.info(f"Predictions in official label ids, ready to submit: {_places(folders)}")
        if not figures or self._sem_seg is None:
            return OrderedDict()
        if official:
            # The averages first, as they are printed.
            figures = {k: v for k, v in official.items() if "-" not in k} | figures | official
            figures["mIoU"] = official["IoU"]
        self._sem_seg.report(figures)
        return OrderedDict(sem_seg=figures)

    def _write(self, image: str, scores: Tensor) -> str:
        if image not in self._files:
            raise UsageError(
                f"image {image} is not in dataset {self._name}: loader and evaluator must read "
                "the same dataset"
            )
        path = os.path.join(self._folder, self._files[image])
        content = io.BytesIO()
        Image.fromarray(self._ids[scores.argmax(0).cpu().numpy()]).save(content, "PNG")
        write_bytes(path, content.getvalue())
        return path


def _label_ids(dataset_name: str) -> np.ndarray:
    """Official label ids by train id."""
    try:
        from cityscapesscripts.helpers.labels import trainId2label
    except ImportError as error:
        raise UsageError(
            f"the Cityscapes evaluation needs cityscapesScripts ({error}): install it"
        ) from error
    labels = [trainId2label[i] for i in range(19)]
    given = list(MetadataCatalog.get(dataset_name).get("stuff_classes", []))
    if given != [label.name for label in labels]:
        raise UsageError(
            f"dataset {dataset_name} does not have the 19 Cityscapes classes in their order: set "
            "its evaluator_type to 'sem_seg'"
        )
    return np.array([label.id for label in labels], dtype=np.uint8)


def _prediction_files(records: Sequence[dict]) -> dict[str, str]:
    files: dict[str, str] = {}
    taken: dict[str, str] = {}
    for image in (record["file_name"] for record in records):
        stem = os.path.splitext(os.path.basename(image))[0]
        other = taken.setdefault(stem, image)
        if other != image:
            raise UsageError(
                f"images {other} and {image} have one name: their predictions would be one file"
            )
        files[image] = f"{stem}_pred.png"
    return files


def _find_truth(dataset_name: str, records: Sequence[dict]) -> tuple[str, ...]:
    """Which kinds of label there are, each for all images or for none; says what that means."""
    labels = [record.get("sem_seg_file_name") or "" for record in records]
    if all(label.endswith(_TRAIN_IDS) for label in labels):
        stems = [label.removesuffix(_TRAIN_IDS) for label in labels]
        kinds = (_TRAIN_IDS, _LABEL_IDS, _INSTANCE_IDS)
        there = [k for k in kinds if _all_or_none([stem + k for stem in stems], dataset_name)]
    else:
        there = [_TRAIN_IDS] if _all_or_none(labels, dataset_name) else []
    if _LABEL_IDS not in there:
        there = [k for k in there if k == _TRAIN_IDS]
    if not there:
        _logger.warning(f"{dataset_name}: no labels, hence no figures: predictions are written")
    elif _LABEL_IDS not in there:
        _logger.warning(
            f"{dataset_name}: no *{_LABEL_IDS} beside the labels: figures are those of train ids, "
            "without iIoU and categories"
        )
    elif _INSTANCE_IDS not in there:
        _logger.warning(f"{dataset_name}: no *{_INSTANCE_IDS} beside the labels, hence no iIoU")
    return tuple(there)


def _all_or_none(paths: Sequence[str], dataset_name: str) -> bool:
    missing = [path for path in paths if not os.path.isfile(path)]
    if 0 < len(missing) < len(paths):
        raise UsageError(
            f"dataset {dataset_name}: {len(missing)} of {len(paths)} labels are missing, such as "
            f"{missing[0] or 'an image without sem_seg_file_name'}: unpack or prepare it again"
        )
    return not missing


def _places(folders: Sequence[str]) -> str:
    apart = " (each process wrote its own part)" if len(folders) > 1 else ""
    return ", ".join(dict.fromkeys(folders)) + apart

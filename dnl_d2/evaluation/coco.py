"""COCO's figures for boxes, masks and keypoints."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import chain

from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm

from dnl_d2.data.datasets.coco_json import read_coco_json, require_borne
from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.data.datasets.keypoints import require_equal_keypoints
from dnl_d2.errors import UsageError
from dnl_d2.evaluation.coco_truth import make_truth, source_ids
from dnl_d2.evaluation.confusion_report import prepare_folder
from dnl_d2.files import write_text

_logger = logging.getLogger(__name__)

# Fastest first: module, class, and what it is called in the log.
_IMPLEMENTATIONS = (
    ("detectron2.evaluation.fast_eval_api", "COCOeval_opt", "Detectron2's compiled evaluation"),
    ("dnl_d2.evaluation.fast_coco", "FastCOCOeval", "faster_coco_eval"),
    ("pycocotools.cocoeval", "COCOeval", "pycocotools"),
)


@cache
def coco_eval() -> tuple[Callable, str]:
    """The fastest COCOeval that can be imported here, and its name."""
    for module, name, words in _IMPLEMENTATIONS:
        try:
            return getattr(import_module(module), name), words
        except ImportError:
            _logger.debug("%s cannot be imported", words, exc_info=True)
    raise ImportError("pycocotools is missing")


class COCOEvaluator(evaluation.COCOEvaluator):
    """Detectron2's evaluator with the fastest COCOeval that is installed; says which.

    faster_coco_eval gives pycocotools' figures to the last bit.

    The truth is what :func:`dnl_d2.evaluation.coco_truth.make_truth` says. Without annotations
    predictions are only written.

    Args:
        dataset_name: a registered dataset; without a ``json_file`` in its metadata it is converted.
        output_dir: gets ``coco_instances_results.json``, in COCO's format for submissions and with
            the ids of the JSON file, and ``instances_predictions.pth``, with those of the records.
        kpt_oks_sigmas: one for each kind of keypoint; empty for those of COCO's 17.

    Raises:
        UsageError: the JSON file cannot be used.
    """

    def __init__(self, dataset_name: str, *, output_dir: str, kpt_oks_sigmas: Sequence[float] = ()):
        meta = MetadataCatalog.get(dataset_name)
        own = hasattr(meta, "set_paths")
        if own and not hasattr(meta, "thing_dataset_id_to_contiguous_id"):
            DatasetCatalog.get(dataset_name)  # which notes the classes, and the file to read
        form = _read(dataset_name, own=own) if hasattr(meta, "json_file") else None
        # Detectron2's choice knows of no other implementation, and a cached conversion may be old.
        super().__init__(
            dataset_name, output_dir=output_dir, use_fast_impl=False, allow_cached_coco=False
        )
        form = form or _read(dataset_name, own=own)
        self._sources = {
            "image_id": source_ids(form.images),
            "category_id": source_ids(form.categories),
        }
        # Records that another loader made have the ids of the file.
        self._numbers = {
            key: {} if own else {source: number for number, source in sources.items()}
            for key, sources in self._sources.items()
        }
        self._coco_api = make_truth(form)
        self._do_evaluation = bool(self._coco_api.anns)
        self._kpt_oks_sigmas = list(kpt_oks_sigmas)

    def reset(self) -> None:
        """Starts anew.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        if comm.is_main_process():
            prepare_folder(self._output_dir)
        super().reset()

    def _eval_predictions(
        self, predictions: Sequence[Mapping], img_ids: Sequence[int] | None = None
    ) -> None:
        """Stands in for Detectron2's, which chooses the implementation.

        Raises:
            UsageError: a class that the dataset does not have, keypoints of which some objects
                have more than others, or a file that cannot be written.
        """
        results = list(chain.from_iterable(part["instances"] for part in predictions))
        self._restore_ids(results)
        path = os.path.join(self._output_dir, "coco_instances_results.json")
        write_text(path, json.dumps([self._as_in_the_file(result) for result in results]))
        if not self._do_evaluation:
            _logger.info("The dataset has no annotations: predictions are in %s", path)
            return
        implementation, words = coco_eval()
        _logger.info("Evaluating with %s; predictions are in %s", words, path)
        for task in self._tasks or self._tasks_from_predictions(results):
            if task == "keypoints":
                what = f"dataset {self._metadata.name}: an object"
                truth = self._coco_api.anns.values()
                require_equal_keypoints((what, entry.get("keypoints")) for entry in truth)
            scored = None  # pycocotools cannot do without a prediction
            if results:
                scored = coco_evaluation._evaluate_predictions_on_coco(
                    self._coco_api,
                    results,
                    task,
                    kpt_oks_sigmas=self._kpt_oks_sigmas,
                    cocoeval_fn=implementation,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
            self._results[task] = self._derive_coco_results(
                scored, task, class_names=self._metadata.get("thing_classes")
            )

    def _restore_ids(self, results: Sequence[dict]) -> None:
        """From the records' to the truth's."""
        images, categories = self._numbers["image_id"], self._numbers["category_id"]
        for result in results if images else ():
            result["image_id"] = images.get(result["image_id"], result["image_id"])
        classes = self._metadata.get("thing_dataset_id_to_contiguous_id", None)
        if classes is None:
            return
        ids = {number: categories.get(found, found) for found, number in classes.items()}
        unknown = next((r["category_id"] for r in results if r["category_id"] not in ids), None)
        if unknown is not None:
            raise UsageError(
                f"the model predicts class {unknown}, but the dataset has the classes 0 to "
                f"{len(ids) - 1}: set its number of classes to {len(ids)}"
            )
        for result in results:
            result["category_id"] = ids[result["category_id"]]

    def _as_in_the_file(self, result: Mapping) -> Mapping:
        """With the ids that image and category have in the user's JSON file."""
        ids = {
            key: sources[result[key]]
            for key, sources in self._sources.items()
            if result[key] in sources
        }
        return {**result, **ids} if ids else result


def _read(name: str, *, own: bool) -> CocoForm:
    """The file of a dataset, which another loader has to bear as well if it is not our own."""
    path = MetadataCatalog.get(name).json_file
    try:
        form, notes = read_coco_json(path)
        if not own:
            require_borne(notes, path)
    except UsageError as error:
        raise UsageError(f"dataset {name}: {path}: {error}") from error
    return form

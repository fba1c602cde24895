"""Cityscapes instances: the official figures, and masks ready to be submitted."""

import contextlib
import copy
import io
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from PIL import Image

from dnl_d2.compat import cityscapes_evaluation
from dnl_d2.data.datasets.cityscapes import IMAGE_SUFFIX
from dnl_d2.data.datasets.cityscapes_instances import INSTANCE_SUFFIX
from dnl_d2.errors import UsageError
from dnl_d2.evaluation.confusion_report import prepare_folder
from dnl_d2.files import write_bytes, write_text

_logger = logging.getLogger(__name__)


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """Writes every predicted mask and scores them with the functions of the official script.

    The figures are those of Detectron2's evaluator of this name, ``AP`` and ``AP50``, and both by
    class; Detectron2's imports a package that is not public since December 2024, and needs all
    processes on one machine. Here each process matches the images it has predicted. Images without
    a file of instance ids, as in the test split, are only predicted.

    Args:
        dataset_name: a registered dataset with ``gt_dir`` and ``thing_classes`` in its metadata.
        output_dir: gets the folder ``submission``: a text file per image and a PNG per mask.

    Raises:
        UsageError: cityscapesscripts cannot be imported, or a class is none of its.
    """

    def __init__(self, dataset_name: str, *, output_dir: str):
        self._script = cityscapes_evaluation("evalInstanceLevelSemanticLabeling")
        self._args = copy.copy(self._script.args)
        self._args.quiet = True
        self._script.setInstanceLabels(self._args)
        self._meta = MetadataCatalog.get(dataset_name)
        self._classes = list(self._meta.thing_classes)
        if self._classes != self._args.instLabels:
            raise UsageError(
                f"dataset {dataset_name} has the classes {', '.join(self._classes)}; the "
                f"Cityscapes evaluation is for {', '.join(self._args.instLabels)}: set its "
                "evaluator_type to 'coco'"
            )
        self._folder = os.path.join(output_dir, "submission")
        self._matches: dict[str, dict] = {}

    def reset(self) -> None:
        """Starts anew: removes the predictions of an earlier run.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        self._matches = {}
        prepare_folder(self._folder)
        if comm.get_local_rank() == 0:
            for path in Path(self._folder).glob("*_leftImg8bit_*"):
                if path.suffix in (".png", ".txt"):
                    path.unlink(missing_ok=True)
        comm.synchronize()  # nobody removes what another has written

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict[str, Instances]]) -> None:
        """Writes one batch and matches it with the truth.

        Args:
            inputs: records with ``file_name``, ``.../CITY/*_leftImg8bit.png``.
            outputs: ``instances`` with pred_classes, scores and pred_masks for each of them.

        Raises:
            UsageError: a model without masks, or a file that cannot be written or read.
        """
        for record, output in zip(inputs, outputs, strict=True):
            image = record["file_name"]
            prediction = self._write(image, output["instances"].to("cpu"))
            truth = self._truth_of(image)
            if os.path.isfile(truth):
                self._match(prediction, truth)

    def evaluate(self) -> OrderedDict | None:
        """``{"segm": figures}`` in %, in the main process; None in others; empty without truth."""
        parts = comm.gather(self._matches)
        if not comm.is_main_process():
            return None
        _logger.info("Predicted masks, ready to submit: %s", self._folder)
        # In the order of names, as the script reads them: ties in scores fall alike.
        found = dict(chain.from_iterable(part.items() for part in parts))
        matches = {path: found[path] for path in sorted(found)}
        if not matches:
            _logger.info("No image has a *%s: no figures", INSTANCE_SUFFIX)
            return OrderedDict()
        table = self._script.evaluateMatches(matches, self._args)
        averages = self._script.computeAverages(table, self._args)
        figures = {"AP": 100 * averages["allAp"], "AP50": 100 * averages["allAp50%"]}
        for name, values in averages["classes"].items():
            figures |= {f"AP-{name}": 100 * values["ap"], f"AP50-{name}": 100 * values["ap50%"]}
        return OrderedDict(segm={key: float(value) for key, value in figures.items()})

    def _write(self, image: str, instances: Instances) -> str:
        if not instances.has("pred_masks"):
            raise UsageError("the Cityscapes evaluation is of masks: set MODEL.MASK_ON True")
        stem = os.path.splitext(os.path.basename(image))[0]
        lines = []
        for number in range(len(instances)):
            name = self._classes[instances.pred_classes[number]]
            file = f"{stem}_{number}_{name}.png"
            content = io.BytesIO()
            Image.fromarray(instances.pred_masks[number].numpy()).save(content, "PNG")
            write_bytes(os.path.join(self._folder, file), content.getvalue())
            score = float(instances.scores[number])
            lines.append(f"{file} {self._script.name2label[name].id} {score}\n")
        path = os.path.join(self._folder, f"{stem}_pred.txt")
        write_text(path, "".join(lines))
        return path

    def _truth_of(self, image: str) -> str:
        folder, name = os.path.split(image)
        name = name.removesuffix(IMAGE_SUFFIX) + INSTANCE_SUFFIX
        return os.path.join(self._meta.gt_dir, os.path.basename(folder), name)

    def _match(self, prediction: str, truth: str) -> None:
        self._args.predictionPath = os.path.abspath(self._folder)
        message = io.StringIO()
        try:
            with contextlib.redirect_stdout(message), contextlib.redirect_stderr(message):
                instances = self._script.instances2dict([truth], False)
                self._matches |= self._script.matchGtWithPreds(
                    [prediction], [truth], instances, self._args
                )
        except (OSError, ValueError, KeyError, IndexError, SystemExit) as error:
            reason = " ".join((message.getvalue() or f"{type(error).__name__}: {error}").split())
            raise UsageError(f"{truth} cannot be evaluated: {reason}") from error

"""pycocotools' figures at the speed of faster_coco_eval, which importing this file needs."""

from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster
from pycocotools.cocoeval import COCOeval

# Powers of two up to 2. For any number n of objects one of them is above 1 / n, but not 2 / n.
_PROBES = 2.0 ** np.arange(-30, 2)
# What pycocotools has for the precision of a single detection that is right.
_ONE_OF_ONE = 1 / (1 + np.spacing(1))


class FastCOCOeval(COCOeval_faster):
    """Stands in for ``pycocotools.cocoeval.COCOeval``: its arrays and figures, to the last bit.

    faster_coco_eval differs in two places. It divides right by all detections, where pycocotools
    adds 2e-16 to the latter, which only counts where a single detection is ranked; and for
    keypoints it leaves out categories without an object. Both are undone here.

    Args:
        coco_gt: truth, a ``pycocotools.coco.COCO``.
        coco_dt: what its ``loadRes`` returned.
        iou_type: ``bbox``, ``segm`` or ``keypoints``.
    """

    summarize = COCOeval.summarize  # the same table, and ``stats``

    def __init__(self, coco_gt: Any, coco_dt: Any, iou_type: str):
        super().__init__(iouType=iou_type, separate_eval=True)
        self.cocoGt, self.cocoDt = coco_gt, coco_dt
        self.params.imgIds = sorted(coco_gt.getImgIds())
        self.params.catIds = sorted(coco_gt.getCatIds())

    def accumulate(self) -> None:
        """Sets ``eval``: precision, recall and scores by threshold, category, area and limit.

        Where the first two detections of a ranking are right, precision 1 is reached with both,
        and stays 1; that is known from the precision at a recall of more than one object.
        """
        recalls = self._paramsEval.recThrs
        self._paramsEval.recThrs = _PROBES
        super().accumulate()
        perfect = np.asarray(self.eval["precision"]) == 1  # (T, probes, K, A, M)
        self._paramsEval.recThrs = recalls
        super().accumulate()
        counts = self._object_counts()
        probe = np.searchsorted(_PROBES, 1 / np.maximum(counts, 1), side="right")
        category, area = np.indices(counts.shape)
        two_right = perfect[:, probe, category, area]  # (T, K, A, M)
        precision = np.asarray(self.eval["precision"])  # (T, R, K, A, M)
        precision[(precision == 1) & ~two_right[:, None]] = _ONE_OF_ONE
        self.eval["precision"] = precision

    def _object_counts(self) -> np.ndarray:
        """Objects that count, by category and range of areas, (K, A)."""
        params = self.params
        rows = {category: row for row, category in enumerate(params.catIds)}
        images = set(params.imgIds)
        objects = [
            (rows[truth["category_id"]], truth["area"])
            for truth in self.cocoGt.anns.values()
            if truth["image_id"] in images and truth["category_id"] in rows and not truth["ignore"]
        ]
        row, area = np.array(objects, dtype=float).reshape(-1, 2).T
        low, high = np.array(params.areaRng, dtype=float).T
        inside = (area[:, None] >= low) & (area[:, None] <= high)
        counts = np.zeros((len(rows), len(low)), dtype=int)
        np.add.at(counts, row.astype(int), inside)
        return counts

"""Testing at several scales and mirrored, for both config systems."""

from detectron2.config import get_cfg
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPN,
    SemanticSegmentor,
)

from dnl_d2.engine.spec import DetectorScales, RunSpec
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor


def check_multi_scale(spec: RunSpec, model_class: type | None) -> None:
    """Raises :class:`UsageError` for a test at several scales of a model that knows none.

    A class that cannot be told yet (None) passes.
    """
    multi_scale, task = spec.multi_scale, spec.task
    if multi_scale is None or model_class is None:
        return
    bases = model_class.__mro__
    if ContextSegmentor in bases and multi_scale.segmentors:
        return
    if multi_scale.detectors and GeneralizedRCNN in bases and PanopticFPN not in bases:
        refused = [task.proposals_key] if task.proposals_key else []
        if task.instances is not None and task.instances.keypoints_key:
            refused.append(task.instances.keypoints_key)
        if refused:
            raise UsageError(f"{multi_scale.key}: not with {refused[0]}, disable one of them")
        return
    remedy = "disable it"
    if SemanticSegmentor in bases and multi_scale.segmentors:
        remedy = "make it a ContextSegmentor (MODEL.META_ARCHITECTURE, LazyConfig: model)"
    raise UsageError(
        f"{multi_scale.key}: {model_class.__name__} does not average over scales; {remedy}"
    )


def detector_at_scales(model: GeneralizedRCNN, scales: DetectorScales) -> GeneralizedRCNNWithTTA:
    """Detectron2's test at several scales around a detector that is built for single ones.

    It reads a YAML config; what it needs to know is read off the model, so that the detector may
    come from anywhere.
    """
    heads = model.roi_heads
    predictor = heads.box_predictor
    if hasattr(predictor, "__getitem__"):  # one for each stage of a cascade; the last decides
        predictor = predictor[-1]
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = heads.mask_on
    cfg.MODEL.KEYPOINT_ON = getattr(heads, "keypoint_on", False)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = heads.num_classes
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = predictor.test_nms_thresh
    cfg.TEST.DETECTIONS_PER_IMAGE = predictor.test_topk_per_image
    mapper = DatasetMapperTTA(list(scales.min_sizes), scales.max_size, scales.flip)
    return GeneralizedRCNNWithTTA(cfg, model, mapper)

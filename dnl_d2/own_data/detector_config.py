"""A config that trains a detector of the model zoo, with a block, on own files in COCO's form."""

import os
from dataclasses import dataclass
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from dnl_d2.checkpoint.describe.architecture import nested
from dnl_d2.checkpoint.describe.yaml_file import PlainDumper
from dnl_d2.checkpoint.detectron2_zoo import addresses, config_path, resolve_model
from dnl_d2.config.keys import add_dnl_config
from dnl_d2.config.loading import zoo_config
from dnl_d2.data.datasets.coco_json import object_kind
from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.errors import UsageError
from dnl_d2.own_data.schedule import DETECTOR_EPOCHS, Schedule, fitting_schedule

# Where the blocks stand in the published detectors; others as NL.
_EVERYWHERE = {"RES3": ["all"], "RES4": ["all"], "RES5": ["all"]}
_ONE = {"RES4": [-2]}
_PLACES: dict[str, tuple[dict[str, Any], dict[str, list], str]] = {
    "gc": ({"RATIO": 0.0625}, _EVERYWHERE, "after_conv3"),
    "nl": ({"REDUCTION": 2}, _ONE, "after_conv3"),
    "dnl": ({}, _ONE, "after_add"),
}
_BACKBONES = {
    "build_resnet_backbone": "build_context_resnet_backbone",
    "build_resnet_fpn_backbone": "build_context_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_context_retinanet_resnet_fpn_backbone",
}
_CLASSES = {"GeneralizedRCNN": "ROI_HEADS", "RetinaNet": "RETINANET"}
# What the weights were trained with, written out even where it is the default.
_WRITTEN_OUT = (
    "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1",
    "MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "INPUT.FORMAT",
)  # fmt: skip


@dataclass(frozen=True)
class CocoSet:
    """A set in COCO's form.

    Args:
        name: of the dataset.
        json, images: the file and the folder of its images.
    """

    name: str
    json: str
    images: str


@dataclass(frozen=True)
class CocoFacts:
    """What a COCO file means for a config.

    Args:
        classes: number of categories.
        images: how many have an object that is learned.
        masks: whether objects have masks.
        run_lengths: whether some of them are run lengths.
    """

    classes: int
    images: int
    masks: bool
    run_lengths: bool


def coco_facts(form: CocoForm) -> CocoFacts:
    """The facts of a file, as :func:`~dnl_d2.data.datasets.coco_json.read_coco_json` reads it."""
    images = {image.id: image for image in form.images}
    objects = [entry for entry in form.annotations or () if entry.iscrowd != 1]
    learned = [entry for entry in objects if object_kind(entry, images[entry.image_id]) is None]
    shapes = [entry.segmentation for entry in objects if entry.segmentation is not None]
    return CocoFacts(
        classes=len(form.categories),
        images=len({entry.image_id for entry in learned}),
        masks=bool(shapes),
        run_lengths=not all(isinstance(shape, list) for shape in shapes),
    )


class ZooDetector:
    """A detector of Detectron2's model zoo to start from.

    Args:
        name: of the model, as ``MODEL.WEIGHTS`` takes it.

    Attributes:
        name: in full.
        address: of its weights.
        cfg: its config.

    Raises:
        UsageError: there is none of that name, or it is one that this is not for.
    """

    def __init__(self, name: str):
        self.name = resolve_model(name, "--model")
        self.address = addresses()[self.name]
        path = config_path(self.name)
        if path.endswith(".py"):
            raise UsageError(f"--model {name}: has no YAML file, take one that has")
        cfg = zoo_config(path)
        assert isinstance(cfg, CfgNode)
        self.cfg = cfg
        model = self.cfg.MODEL
        unfit = {
            "no detector with boxes alone or with masks": model.META_ARCHITECTURE not in _CLASSES,
            "for keypoints": model.KEYPOINT_ON,
            "fed proposals from files": model.LOAD_PROPOSALS,
            f"on the backbone {model.BACKBONE.NAME}": model.BACKBONE.NAME not in _BACKBONES,
        }
        for what, is_so in unfit.items():
            if is_so:
                raise UsageError(
                    f"--model {name}: is {what}; take a Faster or Mask R-CNN or a RetinaNet, such "
                    "as COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
                )

    @property
    def has_masks(self) -> bool:
        return self.cfg.MODEL.META_ARCHITECTURE != "RetinaNet" and self.cfg.MODEL.MASK_ON

    def schedule(self, images: int, batch_size: int) -> Schedule:
        """How long to train on that many images."""
        solver = self.cfg.SOLVER
        return fitting_schedule(
            images,
            epochs=DETECTOR_EPOCHS,
            batch_size=batch_size,
            base_batch_size=solver.IMS_PER_BATCH,
            base_max_iter=solver.MAX_ITER,
        )

    def settings(self, block: str) -> dict[str, Any]:
        """Keys and values of the model and its images, as they differ from the defaults."""
        default = _flat(get_cfg())
        own = _flat(self.cfg)
        kept = {
            key: value for key, value in own.items()
            if (value != default[key] or key in _WRITTEN_OUT)
            and not key.startswith(("DATASETS.", "OUTPUT_DIR", "TEST.", "VERSION"))
        }  # fmt: skip
        arguments, stages, position = _PLACES.get(block, ({}, _ONE, "after_conv3"))
        c4 = self._classes == "ROI_HEADS" and self.cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads"
        context = {"NAME": block, **arguments}
        return kept | {
            "MODEL.WEIGHTS": self.address,
            "MODEL.BACKBONE.NAME": _BACKBONES[self.cfg.MODEL.BACKBONE.NAME],
            **{f"MODEL.RESNETS.CONTEXT.{key}": value for key, value in context.items()},
            **{
                f"MODEL.RESNETS.CONTEXT_STAGES.{stage}": places
                for stage, places in stages.items()
                if not (c4 and stage == "RES5")  # res5 is part of the heads there
            },
            "MODEL.RESNETS.CONTEXT_POSITION": position,
        }

    @property
    def _classes(self) -> str:
        return _CLASSES[self.cfg.MODEL.META_ARCHITECTURE]

    def config(
        self,
        block: str,
        facts: CocoFacts,
        train: CocoSet,
        test: CocoSet | None,
        *,
        schedule: Schedule,
        output_dir: str,
    ) -> dict[str, Any]:
        """Keys and values of a config that trains on ``train`` and evaluates on ``test``."""
        rate = self.cfg.SOLVER.BASE_LR * schedule.rate_factor
        settings = self.settings(block) | {
            f"MODEL.{self._classes}.NUM_CLASSES": facts.classes,
            "SOLVER.IMS_PER_BATCH": schedule.batch_size,
            "SOLVER.BASE_LR": float(f"{rate:.6g}"),
            "SOLVER.MAX_ITER": schedule.max_iter,
            "SOLVER.STEPS": list(schedule.steps),
            "SOLVER.WARMUP_ITERS": schedule.warmup,
            "SOLVER.CHECKPOINT_PERIOD": schedule.period,
            "SOLVER.CHECKPOINTS_TO_KEEP": 3,
            "DATASETS.COCO": [_entry(part) for part in (train, test) if part is not None],
            "DATASETS.TRAIN": [train.name],
            "DATASETS.TEST": [] if test is None else [test.name],
        }
        if self.has_masks:
            settings["MODEL.MASK_ON"] = facts.masks
            settings |= {"INPUT.MASK_FORMAT": "bitmask"} if facts.run_lengths else {}
        if test is not None:
            settings["TEST.EVAL_PERIOD"] = schedule.period
        return settings | {"OUTPUT_DIR": output_dir, "VERSION": 2}


def as_config(settings: dict[str, Any]) -> CfgNode:
    """The config that a file of these settings would give."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(nested(settings)))
    return cfg


def as_yaml(settings: dict[str, Any], comment: str) -> str:
    """The text of a YAML file."""
    tree = nested(settings)
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": 10_000}
    return f"# {comment}\n{yaml.dump(tree, Dumper=PlainDumper, allow_unicode=True, **options)}"


def _entry(part: CocoSet) -> dict[str, str]:
    paths = {"JSON": os.path.abspath(part.json), "IMAGES": os.path.abspath(part.images)}
    return {"NAME": part.name, **paths}


def _flat(cfg: CfgNode, start: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            values |= _flat(value, f"{start}{key}.")
        else:
            values[f"{start}{key}"] = list(value) if isinstance(value, tuple) else value
    return values

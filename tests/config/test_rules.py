"""Values of configs that are refused before anything is built, by their keys."""

import pytest
from detectron2.modeling import BACKBONE_REGISTRY

from dnl_d2.config.rules import check_yaml
from dnl_d2.errors import UsageError
from tests.engine.runs import as_yaml
from tests.modeling.configs import config


def changed(**options):
    cfg = config("build_context_resnet_fpn_backbone")
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.merge_from_list(as_yaml({}, **options))
    return cfg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MODEL__FPN__NORM": "SynBN"}, "MODEL.FPN.NORM is 'SynBN': use a norm"),
        ({"MODEL__ROI_BOX_HEAD__NORM": "fixBN"}, "MODEL.ROI_BOX_HEAD.NORM is 'fixBN'"),
        ({"MODEL__ROI_MASK_HEAD__NORM": "fixBN"}, "MODEL.ROI_MASK_HEAD.NORM is 'fixBN'"),
        ({"SOLVER__STEPS": (4, 2)}, "SOLVER.STEPS is .*: use whole numbers in ascending order"),
        ({"SOLVER__STEPS": (2, 2)}, "SOLVER.STEPS"),
        ({"SOLVER__CLIP_GRADIENTS__CLIP_TYPE": "all"}, "CLIP_TYPE is 'all': use value, norm or"),
        ({"INPUT__FORMAT": "RGBA"}, "INPUT.FORMAT is 'RGBA': use one of RGB, BGR"),
        ({"INPUT__MASK_FORMAT": "polygons"}, "INPUT.MASK_FORMAT .*: use polygon or bitmask"),
        ({"INPUT__MIN_SIZE_TRAIN": ()}, "INPUT.MIN_SIZE_TRAIN"),
        ({"TEST__AUG__MIN_SIZES": (), "TEST__AUG__ENABLED": True}, "TEST.AUG.MIN_SIZES"),
        (
            {"MODEL__ROI_BOX_CASCADE_HEAD__STAGE_LOSS_WEIGHTS": (1.0, 1.0, 1.0)},
            "STAGE_LOSS_WEIGHTS: MODEL.ROI_HEADS.NAME StandardROIHeads does not know them",
        ),
    ],
)
def test_wrong_values_name_their_keys(options, message):
    check_yaml(changed())
    with pytest.raises(UsageError, match=message) as error:
        check_yaml(changed(**options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"CONTEXT__NAME": "dnl", "CONTEXT_STAGES__RES4": [-2]}, "CONTEXT.NAME"),
        ({"CONTEXT_STAGES__RES4": [-2]}, "CONTEXT_STAGES"),
        ({"NORM": "fixBN"}, "NORM fixBN"),
        ({"SHORTCUT": "avg_pool"}, "SHORTCUT"),
        ({"OUTPUT_STRIDE": 8}, "OUTPUT_STRIDE"),
    ],
)
def test_other_backbones_do_not_drop_what_they_do_not_know(options, key):
    options = {f"MODEL__RESNETS__{name}": value for name, value in options.items()}
    check_yaml(changed(**options))
    plain = {"MODEL__BACKBONE__NAME": "build_resnet_fpn_backbone"}
    check_yaml(changed(**plain))
    with pytest.raises(UsageError, match=rf"MODEL\.RESNETS\.{key}: .* use build_context"):
        check_yaml(changed(**options, **plain))


def test_parts_that_others_register_may_know_the_keys():
    @BACKBONE_REGISTRY.register()
    def build_backbone_of_test_values(cfg, input_shape):
        """Around one of this library's."""

    check_yaml(
        changed(
            MODEL__BACKBONE__NAME="build_backbone_of_test_values",
            MODEL__RESNETS__CONTEXT__NAME="gc",
            MODEL__RESNETS__CONTEXT_STAGES__RES4=[-1],
        )
    )


def test_sizes_that_mean_something():
    check_yaml(changed(INPUT__MIN_SIZE_TRAIN=(0,), TEST__AUG__MIN_SIZES=()))

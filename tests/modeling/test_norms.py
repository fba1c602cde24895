"""The norm that GCNet calls fixBN, in backbones."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from dnl_d2 import optimize_for_inference
from dnl_d2.config.rules import check_yaml
from dnl_d2.errors import UsageError
from dnl_d2.layers import FixedBatchNorm2d
from dnl_d2.modeling import build_context_resnet
from tests.modeling.configs import config


@pytest.fixture
def norm():
    """As a checkpoint leaves it."""
    torch.manual_seed(0)
    norm = FixedBatchNorm2d(4)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


def test_detectron2_freezes_it(norm):
    x = torch.randn(3, 4, 5, 6)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    torch.testing.assert_close(frozen(x), norm.train()(x))


def test_a_backbone_of_it():
    model = build_context_resnet(depth=18, norm="fixBN", freeze_at=2)
    kinds = [type(m) for m in model.modules() if type(m).__name__.endswith("BatchNorm2d")]
    assert kinds.count(FixedBatchNorm2d) == 15  # res3 to res5
    assert kinds.count(FrozenBatchNorm2d) == 5  # the stem and res2
    # Detectron2 treats them as norms: WEIGHT_DECAY_NORM is theirs.
    groups = get_default_optimizer_params(model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=9)
    norms = {id(p) for g in groups if g["weight_decay"] == 9 for p in g["params"]}
    assert norms == {id(p) for n, p in model.named_parameters() if ".norm." in n}


def test_only_backbones_of_this_library_know_it():
    cfg = config(NORM="fixBN")
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    check_yaml(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NORM = "fixBN"
    with pytest.raises(UsageError, match=r"MODEL\.SEM_SEG_HEAD\.NORM is 'fixBN': use a norm"):
        check_yaml(cfg)
    with pytest.raises(UsageError, match=r"MODEL\.RESNETS\.NORM .* or fixBN"):
        check_yaml(config(NORM="fixedBN"))
    with pytest.raises(UsageError, match=r"MODEL\.BACKBONE\.NAME build_resnet_fpn_backbone does"):
        check_yaml(config("build_resnet_fpn_backbone", NORM="fixBN"))
    cfg = config(NORM="fixBN")
    with pytest.raises(UsageError, match="Res5ROIHeads does not know it"):
        check_yaml(cfg)


def test_it_is_folded_for_inference(norm):
    conv = Conv2d(3, 4, 3, bias=False, norm=norm)
    x = torch.randn(2, 3, 5, 6)
    fast = optimize_for_inference(conv)
    assert fast.norm is None
    torch.testing.assert_close(fast(x), conv.eval()(x))

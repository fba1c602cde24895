"""Every published recipe has the network of the reference framework's config of that row.

Rows that differ in the schedule alone have one network, which is built for one of them.
"""

import copy

import pytest
from detectron2.modeling import build_model
from torch import nn

from dnl_d2.checkpoint.convert import convert
from dnl_d2.checkpoint.sources import mmseg as source
from dnl_d2.engine import load_config
from tests.configs.networks import geometry, shapes
from tests.configs.test_recipes import CONFIGS, NAME, WITH_REFERENCE, reference
from tests.meta import on_meta


@pytest.fixture(scope="module")
def same():
    """What the networks were built from that have been found to be the same."""
    return set()


def configs(name):
    """Of both networks: the whole of ours, and the part of mmsegmentation's."""
    ours = load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "meta"])
    return ours, reference(name).model


def build_theirs(config):
    from dnl_d2_parity.references.mmseg import MODELS

    model = copy.deepcopy(config)
    for part in (model.backbone, model.decode_head, model.auxiliary_head):
        assert part.norm_cfg == {"type": "SyncBN", "requires_grad": True}
        part.norm_cfg.type = "BN"
    model.pretrained = None
    model.pop("data_preprocessor")
    with on_meta():
        return MODELS.build(model)


def build_ours(cfg):
    head = cfg.MODEL.SEM_SEG_HEAD
    assert cfg.MODEL.RESNETS.NORM == head.NORM == "SyncBN"
    assert not head.CONTEXT.NAME or head.CONTEXT.NORM in ("SyncBN", None)
    with on_meta():
        return build_model(cfg)


def dropouts(head):
    return [m.p for m in head.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_parameters_and_layers_are_the_reference_frameworks(name, same):
    cfg, config = configs(name)
    network = repr((cfg.MODEL, config))
    if network not in same:
        check_parameters_and_layers(build_ours(cfg), build_theirs(config))
        same.add(network)


def check_parameters_and_layers(ours, theirs):
    # By identity, since APNB has one projection under two names.
    named = {id(value): (key, value) for key, value in theirs.state_dict(keep_vars=True).items()}
    public = {number: key for number, (key, _) in named.items()}
    state = dict(named.values())
    converted = convert(state, source.SOURCE)
    assert not converted.unexpected and not converted.dropped

    assert shapes(converted.state) == shapes(ours.state_dict())
    modules = dict(theirs.named_modules(remove_duplicate=False))
    compared = 0
    for key, module in ours.named_modules():
        if not hasattr(module, "weight") or f"{key}.weight" not in converted.state:
            continue
        other = modules[public[id(converted.state[f"{key}.weight"])].rpartition(".")[0]]
        if isinstance(module, nn.Conv2d):
            assert geometry(module) == geometry(other), key
            compared += 1
        elif isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            assert (module.eps, module.momentum) == (other.eps, other.momentum), key
            compared += 1
    assert compared > 100
    assert all(p.requires_grad for p in ours.parameters())
    assert all(p.requires_grad for p in theirs.parameters())
    for head, other in (
        (ours.sem_seg_head, theirs.decode_head),
        (ours.sem_seg_head.auxiliary, theirs.auxiliary_head),
    ):
        if head is ours.sem_seg_head:
            mine = [m.p for n, m in head.named_modules() if n in ("dropout", "bottleneck.0")]
        else:
            mine = dropouts(head)
        assert set(mine) == set(dropouts(other))  # ANN uses one module twice


@pytest.mark.parametrize("name", [n for n in WITH_REFERENCE if "/fcn" not in n])
def test_blocks_are_the_reference_frameworks(name, same):
    """What no parameter shows of a block."""
    cfg, config = configs(name)
    method = NAME.fullmatch(name)["method"]
    block = repr((method, cfg.MODEL.SEM_SEG_HEAD, config.decode_head))
    if block not in same:
        check_block(method, build_ours(cfg).sem_seg_head, config.decode_head)
        same.add(block)


def check_block(method, head, config):
    if method == "ann":
        assert tuple(config.key_pool_scales) == tuple(head.context.attend.pool_scales)
        assert tuple(config.key_pool_scales) == tuple(head.fusion.attend.pool_scales)
        assert tuple(config.query_scales) == (1,)
        return
    if method == "gc":
        assert config.pooling_type == "att" and config.fusion_types == ("channel_add",)
        assert head.context_block.channel_add is not None
        assert head.context_block.channel_mul is None
        return
    assert config.mode == "embedded_gaussian" and config.use_scale
    channels = config.channels // config.reduction
    # DNLHead's default, which the configs leave.
    temperature = config.get("temperature", 0.05) if method == "dnl" else 1.0
    assert head.context_block.scale == pytest.approx(channels**-0.5 / temperature, rel=1e-12)

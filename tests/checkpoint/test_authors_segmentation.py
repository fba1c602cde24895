"""Checkpoints of the DNL and ANN authors' segmentation repositories.

The networks are written down anew in projects/parity; a random one is saved as the repositories
save theirs, read and converted, and must give the same numbers here.
"""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from dnl_d2.checkpoint.convert import convert, convert_back
from dnl_d2.checkpoint.keymap import strip_prefix
from dnl_d2.checkpoint.sources import ann, dnl_seg
from dnl_d2.layers import AsymmetricFusionNonLocalBlock as AFNB
from dnl_d2.layers import AsymmetricPyramidNonLocalBlock as APNB
from dnl_d2.layers import build_context_block
from dnl_d2.modeling import AsymmetricHead, ContextHead, build_context_resnet
from dnl_d2_parity.references import ann as ann_reference
from dnl_d2_parity.references import dnl_seg as dnl_reference
from dnl_d2_parity.references.weights import random_state
from tests.checkpoint.models import assert_equal

PLAIN = {"with_gc": True, "downsample": False, "use_out": False, "out_bn": False}
TEMP_IN = {**PLAIN, "whiten_type": ["channel"], "temp": 0.05}
NL = dict(whiten_type=[], temp=1.0, with_gc=False, downsample=True, use_out=True, out_bn=True)
NOWD = {**PLAIN, "with_nl": True, "nowd": ["nl"], "weight_init_scale": 1.0}
# What the config_dict of a file says, by the network in projects/parity.
CONFIGS = {
    "temp_in": ("nonlocalbn", TEMP_IN),
    "nowd_in": ("nonlocalnowd", {**NOWD, "whiten_type": ["channel"]}),
    "nowd_ln": ("nonlocalnowd", {**NOWD, "whiten_type": ["ln_nostd"]}),
    "ade20k_temp_in": ("nonlocalbn", {**TEMP_IN, "temp": 0.1}),
    "pairwise": ("nonlocalbn", {**TEMP_IN, "with_gc": False}),
    "nl": ("nonlocalbn", NL),
    "gc": ("gcnet", None),
    "fcn": ("basenet", None),
}
NETWORKS = [*dnl_reference.NETWORKS, "ann"]
# Beside an odd size: 48 / 2 is even, where a pool that rounds down gives a smaller map.
ODD, EVEN = (65, 81), (48, 80)


def config_dict(name):
    network, nonlocal_ = CONFIGS[name]
    config = {"dataset": "cityscapes", "network": {"model_name": network, "norm_type": "batchnorm"}}
    return config if nonlocal_ is None else {**config, "nonlocal": nonlocal_}


def authors_network(name, **options):
    if name == "ann":
        return ann_reference.AuthorsNetwork(**options)
    return dnl_reference.AuthorsNetwork(dnl_reference.NETWORKS[name], **options)


def randomized(model):
    """Everything drawn at random: zero-initialised weights, gamma and running statistics too."""
    # For the attention not to saturate, which makes rounding show.
    scales = dict.fromkeys(["conv_query", "conv_key", "f_query", "f_key"], 0.3)
    model.load_state_dict(random_state(model, small="bn3", scales=scales))
    return model.eval()


def source_of(name):
    return ann.SOURCE if name == "ann" else dnl_seg.SOURCE


def published(model):
    """The state dict of a file: trained by nn.parallel, so with ``module.`` before each name."""
    return {f"module.{k}": v.clone() for k, v in model.state_dict().items()}


def our_network(name, *, depth=50, width=8, classes=19, ceil=False, spec=None):
    """Backbone and head; ``spec`` in place of the block that the file's config asks for."""
    backbone = build_context_resnet(
        depth=depth,
        stem="v1c-ceil" if ceil else "v1c",
        stem_out_channels=2 * width,
        res2_out_channels=4 * width,
        width_per_group=width,
        output_stride=8,
        out_features=["res4", "res5"],
    )
    shapes = {n: ShapeSpec(channels=c * width, stride=8) for n, c in (("res4", 16), ("res5", 32))}
    shared = {"channels": 8 * width, "norm": "BN", "num_classes": classes, "align_corners": True}
    auxiliary = ContextHead(
        shapes, in_features=["res4"], num_convs=1, concat_input=False, loss_weight=0.4, **shared
    )
    if name == "ann":
        head = AsymmetricHead(
            shapes, project_channels=4 * width, auxiliary=auxiliary, dropout=0.05, **shared
        )
    else:
        spec = spec or dnl_seg.context_block(config_dict(name))
        head = ContextHead(
            shapes, in_features=["res5"], context_block=spec, auxiliary=auxiliary, **shared
        )
    return nn.ModuleDict({"backbone": backbone, "sem_seg_head": head}).eval()


@torch.no_grad()
def logits(model, image):
    """Of the head and the auxiliary head."""
    features = model["backbone"](image)
    head = model["sem_seg_head"]
    return head(features)[0], head.auxiliary(features)[0]


def photograph(size=ODD, seed=1):
    """Smooth over large parts, as it comes to the network: BGR minus the means."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 60 * torch.randn(2, 3, 5, 7, generator=generator)
    fine = 5 * torch.randn(2, 3, *size, generator=generator)
    return (nn.functional.interpolate(coarse, size, mode="bicubic") + fine) / 60


def difference(got, expected):
    """Largest difference, relative to the largest expected number."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


def pair(name, *, ceil=False, spec=None, stem="prefix", **options):
    """A random network of the authors and ours that has read its file."""
    theirs = randomized(authors_network(name, stem=stem, **options))
    ours = our_network(name, ceil=ceil, spec=spec, **options)
    converted = convert(published(theirs), source_of(name))
    assert converted.unexpected == [] and converted.dropped == {}
    ours.load_state_dict(converted.state, strict=True)
    return theirs, ours


@torch.no_grad()
def differences(theirs, ours, image):
    """Relative differences of the logits, of the head and of the auxiliary head."""
    return [difference(*each) for each in zip(logits(ours, image), theirs(image), strict=True)]


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_published_network(name):
    assert max(differences(*pair(name), photograph())) < 1e-4


@pytest.mark.parametrize("name", ["temp_in", "ann"])
def test_pool_that_rounds_up(name):
    assert max(differences(*pair(name, ceil=True), photograph(EVEN))) < 1e-4
    # Otherwise it pools as detectron2 does.
    assert differences(*pair(name), photograph(EVEN))[0] > 1e-2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temp_in", {"width": 64}),
        ("ann", {"width": 64}),
        ("nowd_ln", {"depth": 101, "classes": 150}),
        ("ann", {"depth": 101, "classes": 59, "stem": "resinit"}),
    ],
)
def test_published_sizes(name, options):
    """Full width, depth 101, other classes, the name of the stem in older files."""
    assert differences(*pair(name, **options), photograph()[:1])[0] < 1e-4


WRONG = [
    ("temp_in", {"temperature": 0.1}),
    ("temp_in", {"whitening": "none"}),
    ("temp_in", {"use_scale": False}),
    ("nowd_ln", {"whitening": "channel"}),
    ("nowd_ln", {"whitening": "none"}),
    ("nowd_in", {"whitening": "channel"}),
    ("nl", {"sub_sample": False}),
]


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_every_setting_that_no_key_shows_matters(name, change):
    spec = {**dnl_seg.context_block(config_dict(name)), **change}
    assert differences(*pair(name, spec=spec), photograph())[0] > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_the_file_matters(name):
    """Each key has a place of its own: a change to any of them moves a logit."""
    theirs, ours = pair(name)
    state, source, image = published(theirs), source_of(name), photograph()[:1]
    before = logits(ours, image)
    parts = ("nlm.", "gcb.", "dsn.", "fusion.", "context.", "cls.", "backbone.prefix.")
    for key in state:
        repeated = key.startswith("module.context.2.stages.0.f_")
        if not key.startswith(tuple(f"module.{p}" for p in parts)) or repeated:
            continue
        if key.endswith("num_batches_tracked") or "conv_key.bias" in key:
            continue  # the key's bias adds the same to all products of a query
        changed = {**state, key: state[key] * 1.5 + 0.1}
        ours.load_state_dict(convert(changed, source).state)
        assert any(not torch.equal(*pair) for pair in zip(logits(ours, image), before, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trips(name):
    theirs, source = randomized(authors_network(name)), source_of(name)
    ours = convert(published(theirs), source).state
    back = convert_back(ours, source)
    assert back.unexpected == []
    assert set(back.state) == set(theirs.state_dict())
    assert_equal(convert(back.state, source).state, ours)
    # What went back is the published network: without biases before norms in the case of ANN.
    other = authors_network(name).eval()
    other.load_state_dict(back.state, strict=True)
    with torch.no_grad():
        assert difference(other(photograph())[0], theirs(photograph())[0]) < 1e-4
    if name != "ann":
        assert_equal(back.state, theirs.state_dict())


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("fcn", "ann")])
def test_blocks_in_float64(name):
    block = dnl_reference.NETWORKS[name]
    if block == "gc":
        theirs = dnl_reference.ContextBlock(12, ratio=1 / 4)
    else:
        theirs = dnl_reference.AuthorsBlock(12, 6, **{**block, "divide": block["divide"](6)})
    theirs = randomized(nn.ModuleDict({"ctb": theirs})).double()
    module = "gcb" if block == "gc" else "nlm"
    state = {f"{module}.{k}": v for k, v in theirs.state_dict().items()}
    converted = convert(state, dnl_seg.SOURCE)
    assert converted.unexpected == []
    ours = build_context_block(dnl_seg.context_block(config_dict(name)), 12).double().eval()
    ours.load_state_dict(strip_prefix(converted.state, "sem_seg_head.context_block."), strict=True)
    x = torch.randn(2, 12, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        for _ in ("eval", "train"):
            torch.testing.assert_close(ours(x), theirs["ctb"](x), rtol=1e-9, atol=1e-11)
            ours.train(), theirs.train()


@pytest.mark.parametrize("training", [False, True])
def test_asymmetric_blocks_in_float64(training):
    """In training too: the batch's mean takes a bias out, and only the running mean knows of it."""
    torch.manual_seed(0)
    context = nn.Sequential(nn.Identity(), nn.Identity(), ann_reference.Block(8, 8, 4, True))
    theirs = nn.ModuleDict({"fusion": ann_reference.Block(6, 12, 5, False), "context": context})
    theirs = randomized(theirs).double().train(training)
    assert "fusion.stages.0.f_key.0.bias" not in ann.SOURCE.prepare(theirs.state_dict())
    converted = convert(theirs.state_dict(), ann.SOURCE)
    assert converted.unexpected == []
    ours = nn.ModuleDict(
        {
            "fusion": AFNB(12, low_channels=6, inter_channels=5),
            "context": APNB(8, inter_channels=4),
        }
    )
    ours.double().train(training)
    ours.load_state_dict(strip_prefix(converted.state, "sem_seg_head."), strict=True)
    low, high, deep = (torch.randn(2, c, 9, 11, dtype=torch.float64) for c in (6, 12, 8))
    with torch.no_grad():
        expected = theirs["fusion"](low, high), theirs["context"][2](deep, deep)
        got = ours["fusion"](high, low=low), ours["context"](deep)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    # After the update of the running statistics the two still are one network.
    key, norm = "fusion.stages.0.f_key.1.0", ours["fusion"].attend.key.norm
    mean, bias = (theirs.state_dict()[k] for k in (f"{key}.running_mean", f"{key[:-4]}.0.bias"))
    torch.testing.assert_close(norm.running_mean, mean - bias, rtol=1e-9, atol=1e-11)

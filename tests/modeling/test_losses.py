"""Losses against mmsegmentation's, and where it defines none or another, against plain NumPy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn

from dnl_d2.errors import UsageError
from dnl_d2.modeling import (
    ContextHead,
    CrossEntropyLoss,
    DiceLoss,
    HardPixels,
    LovaszLoss,
    SumOfLosses,
)
from dnl_d2.modeling.losses import build_loss
from tests.modeling.configs import defaults
from tests.modeling.losses import K, assert_equal, batch, mmseg_loss, value_and_gradient

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

WEIGHTS = [0.5, 2.0, 1.25, 0.25, 4.0]
LOSSES = {
    "cross_entropy": CrossEntropyLoss(),
    "cross_entropy_all": CrossEntropyLoss(average="all"),
    "weighted": CrossEntropyLoss(class_weights=WEIGHTS),
    "ohem": CrossEntropyLoss(ohem=HardPixels(threshold=0.3, min_kept=5)),
    "ohem_top": CrossEntropyLoss(ohem=HardPixels(threshold=None, min_kept=5)),
    "dice": DiceLoss(),
    "dice_joint": DiceLoss(per_class=False),
    "lovasz": LovaszLoss(),
    "lovasz_all": LovaszLoss(classes="all"),
    "lovasz_per_image": LovaszLoss(per_image=True),
    "sum": SumOfLosses([CrossEntropyLoss(), DiceLoss(loss_weight=3.0)]),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("average", ["valid", "all"])
def test_cross_entropy_is_that_of_mmsegmentation(weights, average):
    theirs = mmseg_loss("CrossEntropyLoss", class_weight=weights, avg_non_ignore=average == "valid")
    # With weights it looks up that of the ignored label, which so has to be a class: 3, of weight 1
    # as ignored pixels have here.
    ignore = 255 if weights is None else 3
    if weights:
        weights = [*WEIGHTS[:3], 1.0, WEIGHTS[4]]
        theirs.class_weight = weights
    logits, targets = batch()
    targets[targets == 255] = ignore
    ours = CrossEntropyLoss(average=average, class_weights=weights, ignore_value=ignore)
    # mmsegmentation adds 1.2e-7 to the number of pixels.
    assert_equal(ours, lambda x, y: theirs(x, y, ignore_index=ignore), logits, targets, 1e-8)


def test_weighted_cross_entropy_against_pytorch():
    logits, targets = batch()

    def expected(x, y):
        return F.cross_entropy(x, y, weight=x.new_tensor(WEIGHTS), ignore_index=255)

    assert_equal(LOSSES["weighted"], expected, logits, targets)
    assert not LOSSES["weighted"].state_dict()  # checkpoints keep their keys


@pytest.mark.parametrize("average", ["valid", "all"])
@pytest.mark.parametrize(
    ("threshold", "min_kept"),
    [(0.7, 1), (0.1, 20), (0.0, 7), (1.0, 2), (0.3, 10**6), (None, 1), (None, 17), (None, 10**6)],
)
def test_hard_pixels_are_those_of_mmsegmentation(threshold, min_kept, average):
    from mmseg.structures.sampler import OHEMPixelSampler

    class Context:
        ignore_index = 255
        loss_decode = mmseg_loss("CrossEntropyLoss", avg_non_ignore=average == "valid")

    logits, targets = batch()
    sampler = OHEMPixelSampler(Context, thresh=threshold, min_kept=max(min_kept, 2))
    sampler.min_kept = min_kept  # its constructor refuses 1

    def theirs(x, y):
        weight = sampler.sample(x, y[:, None])
        assert 0 < weight.sum() <= (y != 255).sum()
        return Context.loss_decode(x, y, weight=weight, ignore_index=255)

    ours = CrossEntropyLoss(
        average=average, ohem=HardPixels(threshold=threshold, min_kept=min_kept)
    )
    # mmsegmentation rounds the weights' product to 1e-7 of the number of pixels, see above.
    assert_equal(ours, theirs, logits, targets, 1e-8)


def test_hard_pixels_by_hand():
    """The labels have probabilities 0.9, 0.6 and 0.2; the last pixel is ignored."""
    p = torch.tensor([0.9, 0.6, 0.2, 0.1], dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    targets = torch.tensor([[[0, 0, 0, 255]]])
    for threshold, min_kept, kept in [(0.5, 1, [0.2]), (0.5, 2, [0.2, 0.6]), (None, 1, [0.2])]:
        loss = CrossEntropyLoss(ohem=HardPixels(threshold=threshold, min_kept=min_kept))
        assert loss(logits, targets).item() == pytest.approx(-sum(np.log(kept)) / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_labels_gives_zero_and_gradients(name):
    logits, targets = batch(ignored=2.0)
    value, gradient = value_and_gradient(LOSSES[name], logits, targets)
    assert value == 0 and torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing(name):
    logits, targets = batch()
    other = torch.where((targets == 255)[:, None], -logits, logits)
    value, gradient = value_and_gradient(LOSSES[name], logits, targets)
    torch.testing.assert_close(LOSSES[name](other, targets), value)
    assert not gradient[(targets == 255)[:, None].expand_as(gradient)].any()
    loss = copy.deepcopy(LOSSES[name])
    for part in loss.modules():
        part.ignore_value = 3
    torch.testing.assert_close(loss(logits, targets.masked_fill(targets == 255, 3)), value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [False, True])
def test_full_precision(name, dtype, autocast):
    logits, targets = batch()
    low = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = LOSSES[name](low, targets.byte())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, LOSSES[name](low.float(), targets))


def test_class_weights_of_a_class_that_does_not_count():
    loss = CrossEntropyLoss(class_weights=[0.0, 1.0, 1.0, 1.0, 1.0])
    logits, _ = batch()
    value, gradient = value_and_gradient(loss, logits, torch.zeros(3, 9, 7, dtype=torch.long))
    assert value == 0 and not gradient.any()


def yaml_loss(*options):
    """The loss of LOSS_ keys and their values."""
    keys = [f"MODEL.SEM_SEG_HEAD.LOSS_{key}" for key in options[::2]]
    cfg = defaults(dict(zip(keys, options[1::2], strict=True)))
    return build_loss(cfg.MODEL.SEM_SEG_HEAD)


DICE = ("TERMS.CROSS_ENTROPY", 0.0, "TERMS.DICE", 1.0)
LOVASZ = ("TERMS.CROSS_ENTROPY", 0.0, "TERMS.LOVASZ", 1.0)
OHEM = ("OHEM.ENABLED", True, "OHEM.MIN_KEPT", 5, "OHEM.THRESHOLD")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", ()),
        ("cross_entropy_all", ("AVERAGE", "all")),
        ("weighted", ("CLASS_WEIGHTS", str(WEIGHTS))),
        ("ohem", (*OHEM, 0.3)),
        ("ohem_top", (*OHEM, "None")),
        ("sum", ("TERMS.DICE", 3.0)),
        ("dice", DICE),
        ("dice_joint", (*DICE, "DICE.PER_CLASS", False)),
        ("lovasz_all", (*LOVASZ, "LOVASZ.CLASSES", "all")),
        ("lovasz_per_image", (*LOVASZ, "LOVASZ.PER_IMAGE", True)),
    ],
)
def test_yaml_keys(name, options):
    logits, targets = batch()
    torch.testing.assert_close(yaml_loss(*options)(logits, targets), LOSSES[name](logits, targets))


SHAPES = {"res4": ShapeSpec(channels=4, stride=8), "res5": ShapeSpec(channels=8, stride=8)}


def test_yaml_and_lazy_heads_have_the_same_losses():
    cfg = defaults()
    cfg.merge_from_list(
        "MODEL.SEM_SEG_HEAD.IN_FEATURES ['res5'] MODEL.SEM_SEG_HEAD.NORM BN "
        "MODEL.SEM_SEG_HEAD.CONVS_DIM 4 MODEL.SEM_SEG_HEAD.NUM_CLASSES 5 "
        "MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT 0.4 MODEL.SEM_SEG_HEAD.LOSS_TERMS.DICE 3.0 "
        "MODEL.SEM_SEG_HEAD.LOSS_CLASS_WEIGHTS [0.5,2.0,1.25,0.25,4.0] "
        "MODEL.SEM_SEG_HEAD.LOSS_OHEM.ENABLED True MODEL.SEM_SEG_HEAD.LOSS_OHEM.MIN_KEPT 9 "
        "MODEL.SEM_SEG_HEAD.DROPOUT 0.0 MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM 4".split()
    )
    ours = ContextHead(cfg, SHAPES)
    auxiliary = L(ContextHead)(
        input_shape=SHAPES, in_features=["res4"], channels=4, norm="BN", num_classes=5,
        num_convs=1, concat_input=False, loss_weight=0.4, dropout=0.0,
    )  # fmt: skip
    lazy = OmegaConf.create(
        L(ContextHead)(
            input_shape=None, in_features=["res5"], channels=4, norm="BN", num_classes=5,
            dropout=0.0,
            loss=L(SumOfLosses)(
                losses=[
                    L(CrossEntropyLoss)(
                        class_weights=WEIGHTS, ohem=L(HardPixels)(threshold=0.7, min_kept=9)
                    ),
                    L(DiceLoss)(loss_weight=3.0),
                ]
            ),
        ),
        flags={"allow_objects": True},
    )  # fmt: skip
    lazy.input_shape = SHAPES
    twin = instantiate(lazy)
    twin.auxiliary = instantiate(auxiliary)
    twin.load_state_dict(ours.state_dict())
    features = {name: torch.randn(2, s.channels, 5, 6) for name, s in SHAPES.items()}
    targets = torch.randint(0, K, (2, 33, 41))
    _, expected = ours.train()(features, targets)
    _, got = twin.train()(features, targets)
    names = ["loss_sem_seg_cross_entropy", "loss_sem_seg_dice", "loss_sem_seg_auxiliary"]
    assert list(expected) == list(got) == names
    for name in names:
        torch.testing.assert_close(got[name], expected[name])
    # The auxiliary head's loss is the plain one.
    logits = ours.auxiliary._resize(ours.auxiliary.layers(features), (33, 41))
    torch.testing.assert_close(expected[names[2]], 0.4 * F.cross_entropy(logits, targets))


class LossOfOthers(nn.Module):
    """All that a head asks for."""

    ignore_value = 7

    def forward(self, logits, targets):
        return F.cross_entropy(logits, targets, ignore_index=self.ignore_value)


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (LossOfOthers(), [""]),
        (DiceLoss(ignore_value=7), [""]),
        (SumOfLosses([DiceLoss(ignore_value=7)]), ["_dice"]),
        (SumOfLosses([LovaszLoss(ignore_value=7), DiceLoss(ignore_value=7)]), ["_lovasz", "_dice"]),
    ],
)
def test_what_heads_log(loss, names):
    options = {"channels": 4, "norm": "BN", "num_classes": K, "loss": loss}
    auxiliary = ContextHead(SHAPES, in_features=["res4"], **options)
    head = ContextHead(SHAPES, in_features=["res5"], auxiliary=auxiliary, **options)
    assert head.ignore_value == 7
    features = {name: torch.randn(2, s.channels, 5, 6) for name, s in SHAPES.items()}
    _, losses = head.train()(features, torch.randint(0, K, (2, 33, 41)))
    prefixes = ("loss_sem_seg", "loss_sem_seg_auxiliary")
    assert list(losses) == [prefix + name for prefix in prefixes for name in names]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: yaml_loss("TERMS.CROSS_ENTROPY", 0.0), r"LOSS_TERMS .*one must not be 0"),
        (lambda: yaml_loss("TERMS.DICE", -1.0), r"LOSS_TERMS .*negative"),
        (lambda: yaml_loss("CLASS_WEIGHTS", [1.0, -1.0]), "class weights .*negative"),
        (lambda: yaml_loss("CLASS_WEIGHTS", ["a", 1.0]), "SEM_SEG_HEAD.LOSS_.*class weights"),
        (lambda: yaml_loss("OHEM.ENABLED", True, "OHEM.THRESHOLD", 7.0), "HEAD.LOSS_.*OHEM.* 7.0"),
        (lambda: yaml_loss(*DICE, "OHEM.ENABLED", True), "belong to cross entropy"),
        (lambda: yaml_loss(*DICE, "CLASS_WEIGHTS", [1.0, 2.0]), "belong to cross entropy"),
        (lambda: CrossEntropyLoss(class_weights=[]), "one number per class"),
        (lambda: HardPixels(threshold=1.5), r"threshold 1\.5 is no probability"),
        (lambda: HardPixels(min_kept=0), "min_kept=0"),
        (lambda: LovaszLoss(classes="some"), "Lovasz classes 'some'"),
        (lambda: DiceLoss(loss_weight=0), "loss_weight=0"),
        (lambda: SumOfLosses([]), "at least one"),
        (lambda: SumOfLosses([DiceLoss(), DiceLoss()]), "each kind once"),
        (lambda: SumOfLosses([DiceLoss(), LovaszLoss(ignore_value=0)]), "ignore different labels"),
        (
            lambda: ContextHead(
                SHAPES, in_features=["res5"], num_classes=7, loss=LOSSES["weighted"]
            ),
            "5 class weights .*LOSS_CLASS_WEIGHTS.*7 classes",
        ),
    ],
)
def test_bad_options_are_one_clear_line(build, message):
    with pytest.raises(UsageError, match=message) as error:
        build()
    assert "\n" not in str(error.value)

"""Dice and Lovasz against mmsegmentation's, and where it defines another, against plain NumPy."""

import numpy as np
import pytest
import torch

from dnl_d2.modeling import DiceLoss, LovaszLoss
from tests.modeling.losses import K, assert_equal, batch, mmseg_loss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")


def test_joint_dice_is_that_of_mmsegmentation_without_ignored_pixels():
    theirs = mmseg_loss("DiceLoss", use_sigmoid=False)
    logits, targets = batch(ignored=0.0)
    assert_equal(DiceLoss(per_class=False), theirs, logits, targets, 1e-7)  # its labels are fp32


def dice_oracle(logits, targets, per_class, eps=1e-3):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = []
    for n in range(len(p)):
        image, sums = [], np.zeros(3)
        for k in range(K):
            inside = np.zeros(3)
            for i, j in np.argwhere(targets[n] != 255):
                t = float(targets[n, i, j] == k)
                inside += p[n, k, i, j] * t, p[n, k, i, j] ** 2, t
            sums += inside
            if inside[2]:
                image.append(1 - 2 * inside[0] / (inside[1] + inside[2] + 2 * eps))
        if image:
            joint = [1 - 2 * sums[0] / (sums[1] + sums[2] + 2 * eps)]
            values += image if per_class else joint
    return np.mean(values)


@pytest.mark.parametrize("per_class", [False, True])
def test_dice_against_a_loop(per_class):
    logits, targets = batch()
    targets[1] = 255  # an image without labels takes no part
    expected = dice_oracle(logits.numpy(), targets.numpy(), per_class)
    loss = DiceLoss(per_class=per_class)
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())


def jaccard_extension(errors, foreground):
    """Algorithm 1 of arXiv 1705.08790 as it defines it: IoU losses of growing sets of errors."""
    order = np.argsort(-errors, kind="stable")
    value, before = 0.0, 0.0
    wrong = np.zeros(len(errors), bool)
    for i in order:
        wrong[i] = True
        union = (foreground | wrong).sum()
        after = wrong.sum() / union  # 1 - |G minus wrong| / |G or wrong|
        value += errors[i] * (after - before)
        before = after
    return value


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_against_its_definition(classes, per_image):
    logits, targets = batch()
    p, labels = logits.softmax(1).numpy(), targets.numpy()
    values = []
    for part in [[n] for n in range(len(p))] if per_image else [list(range(len(p)))]:
        valid = labels[part] != 255
        y = labels[part][valid]
        used = np.unique(y) if classes == "present" else range(K)
        image = []
        for k in used:
            x = p[part][:, k][valid]
            image.append(jaccard_extension(np.where(y == k, 1 - x, x), y == k))
        values.append(np.mean(image))
    loss = LovaszLoss(classes=classes, per_image=per_image)
    assert loss(logits, targets).item() == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_is_that_of_mmsegmentation(classes, per_image):
    reduction = "mean" if per_image else "none"
    theirs = mmseg_loss("LovaszLoss", classes=classes, per_image=per_image, reduction=reduction)
    logits, targets = batch()

    def expected(x, y):
        # Its one-hot labels are fp32, which torch.dot does not multiply with fp64.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            return theirs(x, y, ignore_index=255)

    ours = LovaszLoss(classes=classes, per_image=per_image)
    assert_equal(ours, expected, logits, targets)


def test_lovasz_leaves_images_without_labels_out():
    logits, targets = batch()
    loss = LovaszLoss(per_image=True)
    expected = loss(logits[:2], targets[:2])
    targets[2] = 255
    torch.testing.assert_close(loss(logits, targets), expected)


def test_lovasz_keeps_one_tensor_more_than_the_softmax():
    """150 classes of a graph each would keep hundreds of times the softmax's memory."""
    logits = torch.randn(1, 150, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = LovaszLoss()(logits, torch.randint(0, 150, (1, 16, 16)))
    assert sum(t.numel() for t in kept) <= 2 * logits.numel() + 10
    loss.backward()


def test_dice_of_a_large_crop_in_fp32():
    """Half a million probabilities per sum: added up in fp32 one by one, they lose the loss."""
    logits = torch.zeros(1, 2, 512, 1024)
    logits[:, 0] = 3.0
    labels = torch.zeros(1, 512, 1024, dtype=torch.long)
    expected = DiceLoss()(logits.double(), labels)
    torch.testing.assert_close(DiceLoss()(logits, labels).double(), expected, rtol=1e-3, atol=0)

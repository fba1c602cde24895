"""Cross entropy of large batches, by parts, against that of their full-size logits."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dnl_d2.modeling.losses import CrossEntropyLoss, HardPixels, by_parts
from tests.modeling.test_heads import auxiliary_head, context_head, features

K = 5
SIZE = (33, 40)
CORNERS = [{}, {"align_corners": True}, {"half_pixel_centers": False}]
WEIGHTS = [0.5, 2.0, 0.0, 0.25, 4.0]
PICTURE = K * 33 * 40  # numbers


@pytest.fixture
def parts_of(monkeypatch):
    """Sets how many pictures a part has."""

    def choose(pictures, dtype=torch.float32):
        monkeypatch.setattr(by_parts, "PART_BYTES", pictures * PICTURE * dtype.itemsize)

    return choose


def batch(dtype=torch.float64, count=3):
    """One picture has no label at all."""
    generator = torch.Generator().manual_seed(0)
    predictions = 3 * torch.randn(count, K, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(K, (count, *SIZE), generator=generator)
    targets[:, 7:19] = 255
    targets[1] = 255
    return predictions.to(dtype).requires_grad_(), targets


def computed(loss, predictions, targets, **corners):
    """As a head computes it."""
    return context_head(loss=loss, **corners).losses(predictions, targets)["loss_sem_seg"]


def value_and_gradient(loss, predictions, targets, **corners):
    value = 0.4 * computed(loss, predictions, targets, **corners)
    return value, *torch.autograd.grad(value, predictions)


class Largest(TorchDispatchMode):
    """The most numbers that a floating-point result of an operation has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if x.is_floating_point()]
        self.numbers = max(self.numbers, *sizes, 0)
        return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("corners", CORNERS)
@pytest.mark.parametrize(
    "options", [{}, {"average": "all"}, {"class_weights": WEIGHTS, "loss_weight": 3.0}]
)
def test_parts_add_up_to_the_whole(parts_of, dtype, corners, options):
    loss, (predictions, targets) = CrossEntropyLoss(**options), batch(dtype)
    full = torch.float64 if dtype == torch.float64 else torch.float32
    parts_of(3, full)
    expected = value_and_gradient(loss, predictions, targets, **corners)
    assert expected[1].abs().max() > 1e-4
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    for pictures in (1, 2):
        parts_of(pictures, full)
        value, gradient = value_and_gradient(loss, predictions, targets, **corners)
        assert value.dtype == full and gradient.dtype == dtype
        torch.testing.assert_close(value, expected[0], rtol=min(tolerance, 1e-6), atol=0)
        torch.testing.assert_close(
            gradient, expected[1], rtol=tolerance, atol=tolerance * expected[1].abs().max().item()
        )


@pytest.mark.parametrize("average", ["valid", "all"])
def test_without_any_label_nothing_is_learnt(parts_of, average):
    parts_of(1)
    predictions, targets = batch()
    targets[:] = 255
    loss = CrossEntropyLoss(average=average)
    value, gradient = value_and_gradient(loss, predictions, targets)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_full_size_logits_exist_for_one_part_only(parts_of, dtype):
    predictions, targets = batch(dtype)
    head, found = context_head(), []
    for pictures in (1, 2, 3):
        parts_of(pictures)
        with Largest() as seen, torch.autocast("cpu", torch.bfloat16):
            head.losses(predictions, targets)["loss_sem_seg"].backward()
        found.append(seen.numbers / PICTURE)
    assert found == [1, 2, 3]


def test_nothing_of_full_size_is_kept_for_the_backward_pass(parts_of):
    parts_of(1)
    predictions, targets = batch(torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        computed(CrossEntropyLoss(), predictions, targets)
    numbers = [x.numel() for x in kept if x.is_floating_point()]
    assert max(numbers) == predictions.numel()


def test_losses_that_need_all_pixels_get_them(parts_of):
    class Halved(CrossEntropyLoss):
        def compute(self, logits, targets):
            return super().compute(logits, targets) / 2

    predictions, targets = batch()
    hard = CrossEntropyLoss(ohem=HardPixels(min_kept=9))
    for loss in (hard, Halved(), torch.nn.CrossEntropyLoss(ignore_index=255)):
        expected = loss(F.interpolate(predictions, SIZE, mode="bilinear"), targets)
        parts_of(1)
        found = computed(loss, predictions, targets)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_loss_without_gradients_is_computed_too(parts_of, mode):
    predictions, targets = batch()
    expected, _ = value_and_gradient(CrossEntropyLoss(), predictions, targets)
    parts_of(1)
    with mode():
        found = computed(CrossEntropyLoss(), predictions, targets)
    torch.testing.assert_close(0.4 * found, expected.detach())


def test_a_head_and_its_auxiliary_learn_the_same(parts_of):
    head = context_head(auxiliary=auxiliary_head(), dropout=0.0).train()
    maps, targets = features(), batch()[1][:2]
    found = []
    for pictures in (2, 1):
        parts_of(pictures)
        head.zero_grad()
        _, losses = head(maps, targets)
        sum(losses.values()).backward()
        found.append((losses, {name: p.grad for name, p in head.named_parameters()}))
    torch.testing.assert_close(found[1], found[0])


def test_a_compiler_gets_one_graph(parts_of):
    parts_of(1)
    predictions, targets = batch()
    compiled = torch.compile(context_head().losses, backend="eager", fullgraph=True)
    found = compiled(predictions, targets)["loss_sem_seg"]
    expected, _ = value_and_gradient(CrossEntropyLoss(), predictions, targets)
    torch.testing.assert_close(0.4 * found, expected)


def test_a_label_that_is_no_class_is_refused(parts_of):
    parts_of(1)
    predictions, targets = batch()
    targets[2, 0, 0] = K
    with pytest.raises(IndexError, match="out of bounds"):
        computed(CrossEntropyLoss(), predictions, targets)

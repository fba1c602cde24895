"""What steps of training do to two models with the same weights."""

from dataclasses import dataclass

import torch
from detectron2.solver import build_optimizer
from torch import Tensor

from dnl_d2_parity.comparison.models import Twins
from dnl_d2_parity.differences import relative
from dnl_d2_parity.references import mmseg


@dataclass
class Training:
    """Largest relative differences of losses, gradients, weights after a step and statistics."""

    loss: float
    gradient: float
    weights: float
    statistics: float


def train(
    twins: Twins, images: Tensor, labels: Tensor, *, steps: int = 1, seed: int = 0
) -> Training:
    """Compares steps of training, batch norm and dropout (with equal seeds) included.

    The statistics leave out those that mmsegmentation updates twice a step: its ANN head runs the
    projection that keys and queries share once for each.
    """
    theirs = mmseg.optimizer(twins.reference)
    mine = build_optimizer(twins.cfg, twins.ours)
    batch = [{"image": x, "sem_seg": y} for x, y in zip(images, labels, strict=True)]
    result = Training(0.0, 0.0, 0.0, 0.0)
    for _ in range(steps):
        torch.manual_seed(seed)
        expected = mmseg.losses(twins.reference, images, labels)
        torch.manual_seed(seed)
        got = twins.ours.train()(batch)
        for value, other in zip(got.values(), expected.values(), strict=True):
            result.loss = max(result.loss, relative(value, other))
        for optimizer, losses in ((theirs, expected), (mine, got)):
            optimizer.zero_grad()
            sum(losses.values()).backward()
        result.gradient = max(result.gradient, max(gradient_differences(twins).values()))
        theirs.step()
        mine.step()
    _compare_weights(twins, result)
    return result


def gradient_differences(twins: Twins) -> dict[str, float]:
    """Relative difference of every parameter's gradient, by our name.

    A softmax or a norm cancels the bias in front of it. Such gradients are zero but for rounding,
    less than a millionth of the largest one; they must be so in both models and then count as 0.
    """
    parameters = dict(twins.reference.named_parameters())
    pairs = {
        n: (p.grad, parameters[twins.origin[n]].grad) for n, p in twins.ours.named_parameters()
    }
    assert len(pairs) == len(parameters)
    rounding = 1e-6 * max(theirs.abs().max() for _, theirs in pairs.values())
    return {
        name: 0.0
        if max(ours.abs().max(), theirs.abs().max()) < rounding
        else relative(ours, theirs)
        for name, (ours, theirs) in pairs.items()
    }


def _compare_weights(twins: Twins, result: Training) -> None:
    expected = twins.reference.state_dict()
    for name, value in twins.ours.state_dict().items():
        difference = relative(value, expected[twins.origin[name]])
        if "running_" not in name and "num_batches" not in name:
            result.weights = max(result.weights, difference)
        elif not name.startswith("sem_seg_head.context.attend.key."):
            result.statistics = max(result.statistics, difference)

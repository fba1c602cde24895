"""Random predictions and labels, and how a loss and its gradient are compared."""

import torch

from dnl_d2_parity.references import mmseg  # noqa: F401  (makes mmseg importable without compiled parts)

K = 5


def batch(ignored=0.2, batch=3, size=(9, 7), classes=(0, 1, 2, 4), seed=0):
    """Float64 logits and labels that lack class 3; the last image lacks class 0 too."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, K, *size, generator=generator, dtype=torch.float64)
    choice = torch.randint(len(classes), (batch, *size), generator=generator)
    targets = torch.tensor(classes)[choice]
    targets[-1][targets[-1] == 0] = 1
    targets[torch.rand(targets.shape, generator=generator) < ignored] = 255
    return logits, targets


def value_and_gradient(loss, logits, targets):
    logits = logits.clone().requires_grad_()
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def assert_equal(ours, theirs, logits, targets, tolerance=1e-12):
    got = value_and_gradient(ours, logits, targets)
    expected = value_and_gradient(theirs, logits, targets)
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    assert got[1].abs().max() > 1e-4


def mmseg_loss(name, **options):
    from mmseg.registry import MODELS

    return MODELS.build(dict(type=name, **options))

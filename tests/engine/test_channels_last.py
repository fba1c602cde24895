"""Training with channels-last feature maps."""

import pytest
import torch
from torch import nn

from dnl_d2.engine import run
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_training
from dnl_d2.layers.context_block import ContextBlock
from dnl_d2.modeling.memory_format import weights_channels_last
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
KINDS = [(yaml_config, "SOLVER__CHANNELS_LAST"), (lazy_config, "train__channels_last")]
LAST = torch.channels_last


@pytest.mark.parametrize(("kind", "key"), KINDS)
@pytest.mark.parametrize("wanted", [True, False])
def test_maps_lie_as_the_config_says(kind, key, wanted, tmp_path):
    step, _, _ = build_training(read_config(kind(tmp_path, **{key: wanted}), train=True))
    seen = {}
    for name, module in step.model.named_modules():
        if isinstance(module, ContextBlock) or name == "backbone.res2.0.conv2":
            module.register_forward_hook(
                lambda m, x, y: seen.update(
                    {m: [z.is_contiguous(memory_format=LAST) for z in (*x, y)]}
                )
            )
    step.model(next(iter(step.data_loader)))
    assert len(seen) == 2
    assert {order for orders in seen.values() for order in orders} == {wanted}


def test_runs_go_on_from_either_order_and_leave_the_same_files(tmp_path):
    files = {}
    for order in (True, False):
        options = {"SEED": 1, "DATASETS__TEST": "()", "SOLVER__CHANNELS_LAST": order}
        options["MODEL__SEM_SEG_HEAD__DROPOUT"] = 0.0  # which goes through memory in its order
        torch.manual_seed(1)
        run(yaml_config(tmp_path / str(order), length=1, **options), arguments())
        options["SOLVER__CHANNELS_LAST"] = not order
        run(yaml_config(tmp_path / str(order), length=2, **options), arguments(resume=True))
        files[order] = torch.load(tmp_path / str(order) / "model_final.pth", weights_only=False)
    ours, theirs = files.values()
    for key, value in ours["model"].items():
        assert value.is_contiguous()
        torch.testing.assert_close(value, theirs["model"][key], rtol=1e-3, atol=1e-4)
    momenta = [f["trainer"]["optimizer"]["state"] for f in (ours, theirs)]
    assert len(momenta[0]) > 50
    for number, of_one in momenta[0].items():
        mine, other = of_one["momentum_buffer"], momenta[1][number]["momentum_buffer"]
        assert mine.is_contiguous() and other.is_contiguous()
        torch.testing.assert_close(mine, other, rtol=2e-2, atol=2e-3)


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 6, 2))


def test_gradients_lie_as_the_weights():
    model, other = convolutions(), convolutions()
    weights_channels_last(model)
    images = torch.randn(2, 3, 12, 12)
    for network in (model, other):
        network(images).square().mean().backward()
    assert not model[0].weight.is_contiguous() and not model[3].weight.is_contiguous()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad.stride() == mine.stride()
        torch.testing.assert_close(mine.grad, theirs.grad)

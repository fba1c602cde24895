"""Attention maps of a whole model, and the comparison picture."""

import numpy as np
import pytest
import torch
from detectron2.modeling import GeneralizedRCNN, SemanticSegmentor
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.modeling import AsymmetricHead, ContextHead, build_context_resnet
from dnl_d2.visualization import color_label, draw_rows, head_attention


def model(block):
    torch.manual_seed(0)
    backbone = build_context_resnet(
        depth=18, stem_out_channels=8, res2_out_channels=8, out_features=["res2", "res3"]
    )
    shape, common = backbone.output_shape(), {"channels": 16, "norm": "BN", "num_classes": 3}
    if block == "ann":
        head = AsymmetricHead(shape, in_features=["res2", "res3"], project_channels=8, **common)
    else:
        head = ContextHead(shape, in_features=["res3"], context_block=block, **common)
    return SemanticSegmentor(
        backbone=backbone, sem_seg_head=head, pixel_mean=[100.0] * 3, pixel_std=[50.0] * 3
    ).eval()


def test_maps_are_those_the_forward_pass_uses():
    net, image = model("dnl"), torch.randint(0, 255, (3, 64, 96))
    seen = []
    net.sem_seg_head.context_block.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        net([{"image": image}])
    maps = head_attention(net, image, [(0, 0), (63, 95), (20, 50)])
    expected = net.sem_seg_head.context_block.attention(seen[0], [(0, 0), (7, 11), (2, 6)])
    assert maps["pairwise"].shape == (3, 8, 12) and maps["unary"].shape == (8, 12)
    for name, value in maps.items():
        torch.testing.assert_close(value, expected[name][0])


def test_an_asymmetric_head_shows_both_of_its_blocks():
    net, image = model("ann"), torch.randint(0, 255, (3, 64, 96))
    seen = {}
    for name in ("fusion", "context"):
        block = net.sem_seg_head.get_submodule(name)
        block.register_forward_pre_hook(
            lambda m, args, kwargs, name=name: seen.update({name: (args[0], kwargs)}),
            with_kwargs=True,
        )
    with torch.no_grad():
        net([{"image": image}])
    forward = dict(seen)
    maps = head_attention(net, image, [(0, 0), (20, 50)])
    assert maps["fusion"].shape == (2, 16, 24) and maps["pairwise"].shape == (2, 8, 12)
    for name, key in (("fusion", "fusion"), ("context", "pairwise")):
        x, options = forward[name]
        block = net.sem_seg_head.get_submodule(name)
        expected = block.attention(x, [(0, 0), (2, 6)], **options)["pairwise"][0]
        torch.testing.assert_close(maps[key], expected)
        torch.testing.assert_close(maps[key].sum((1, 2)), torch.ones(2))


def test_the_pyramid_block_in_a_context_head():
    maps = head_attention(model("apnb"), torch.randint(0, 255, (3, 64, 96)), [(5, 6)])
    assert list(maps) == ["pairwise"] and maps["pairwise"].shape == (1, 8, 12)
    torch.testing.assert_close(maps["pairwise"].sum(), torch.tensor(1.0))


def test_what_has_no_maps_says_so():
    with pytest.raises(UsageError, match=r"GeneralizedRCNN has no .*res4\[-1\].context"):
        head_attention(object.__new__(GeneralizedRCNN), torch.zeros(3, 64, 64), [(0, 0)])
    with pytest.raises(UsageError, match="no context block"):
        head_attention(model(None), torch.zeros(3, 64, 64), [(0, 0)])
    with pytest.raises(UsageError, match="outside the 64x64 image"):
        head_attention(model("dnl"), torch.zeros(3, 64, 64), [(64, 0)])


def test_labels_get_their_colours_and_others_black():
    label = np.array([[0, 1], [255, 1]])
    got = color_label(label, [(1, 2, 3), (4, 5, 6)])
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(got[1], [[0, 0, 0], [4, 5, 6]])


def test_picture_shows_every_panel(tmp_path):
    panels = {"red": np.full((20, 30, 3), (255, 0, 0), np.uint8), "map": np.eye(4)}
    draw_rows(
        str(tmp_path / "p.png"), [panels, panels], queries=[(3, 4)] * 2, legend={"a": (0, 0, 9)}
    )
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    red = (picture == (255, 0, 0)).all(-1)
    middle = picture.shape[0] // 2
    assert red[:middle].sum() > 1000 and red[middle:].sum() > 1000

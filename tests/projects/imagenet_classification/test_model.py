"""The classifier: sizes of the published table, scores of torchvision, weights for other models."""

import pytest
import timm
import torch
import torchvision

from dnl_d2.analysis import analyze
from dnl_d2.checkpoint import Checkpointer
from dnl_d2.engine import build_model, load_config, read_config
from dnl_d2.errors import UsageError
from dnl_d2.modeling import build_context_resnet
from dnl_d2.modeling.from_config import build_from_config
from dnl_d2_imagenet import ImageClassifier
from tests.checkpoint.models import DETECTOR, SEGMENTOR, build

PROJECT = "projects/imagenet_classification"
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Millions of parameters and GFLOPs; arXiv 1904.11492's table of ImageNet, but for DNL and R-101.
PUBLISHED = {
    "r50": (25.56, 3.86),
    "r50_snl": (26.61, 3.86),
    "r50_gc": (25.69, 3.86),
    "r50_gc_c3-c5": (28.08, 3.87),
}


def counted(root, name):
    model = build_from_config(str(root / PROJECT / f"configs/{name}.py"), device="meta")
    found = analyze(model, (224, 224))
    parameters = sum(p.total for p in found.parameters.values())
    operations = sum(count.multiply_adds for count in found.operations.values())
    return round(parameters / 1e6, 2), round(operations / 1e9, 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_published_table(root, name):
    assert counted(root, name) == PUBLISHED[name]


def test_a_non_local_block_has_the_published_parameters(root):
    # 4.11 published: less than its four convolutions and two products of attention take.
    assert counted(root, "r50_nl") == (27.66, 4.31)


@pytest.mark.parametrize("name", ["r50_dnl", "r101", "r101_gc_c3-c5", "r50_step"])
def test_all_other_configs_build(root, name):
    parameters, operations = counted(root, name)
    assert parameters > 25 and operations > 3.8


def classifier(depth=18, classes=10, **options):
    torch.manual_seed(0)
    backbone = build_context_resnet(depth=depth, mask_padding=False, **options)
    return ImageClassifier(
        backbone, num_classes=classes, pixel_mean=MEAN, pixel_std=STD, label_smoothing=0.1
    )


def inputs(count=2, size=64, **more):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return [{"image": image, "category_id": n, **more} for n, image in enumerate(images)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_scores_are_those_of_torchvision(name, tmp_path):
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / f"{name}.pth")
    model = classifier(depth=int(name[6:]), classes=1000).eval()
    Checkpointer(model).load_whole(str(tmp_path / f"{name}.pth"))
    batch = inputs()
    pixels = torch.stack([x["image"] for x in batch]).float()
    normalised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected = theirs(normalised)
        found = torch.stack([x["scores"] for x in model(batch)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_scores_are_those_of_timm(tmp_path):
    torch.manual_seed(1)
    theirs = timm.create_model("resnet18d").eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18d.pth")
    model = classifier(classes=1000, stem="v1c", shortcut="avg_pool").eval()
    Checkpointer(model).load_whole(str(tmp_path / "resnet18d.pth"))
    batch = inputs()
    pixels = torch.stack([x["image"] for x in batch]).float()
    normalised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        found = torch.stack([x["scores"] for x in model(batch)])
        torch.testing.assert_close(found, theirs(normalised), rtol=1e-4, atol=1e-4)


def test_loss_is_smoothed_cross_entropy():
    model = classifier()
    logits = []
    model.classifier.register_forward_hook(lambda *call: logits.append(call[2]))
    loss = model(inputs())["loss_classification"]
    target = torch.full((2, 10), 0.1 / 10)
    target[[0, 1], [0, 1]] += 0.9
    expected = -(target * logits[0].log_softmax(1)).sum(1).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_what_means_nothing_is_refused():
    model = classifier()
    with pytest.raises(UsageError, match="several sizes"):
        model([*inputs(1), *inputs(1, size=32)])
    with pytest.raises(UsageError, match="has class 1, and the model has classes 0 to 0"):
        classifier(classes=1)(inputs())
    with pytest.raises(UsageError, match="has class -1, and the model has classes 0 to 9"):
        model([*inputs(1), *inputs(1, category_id=-1)])
    with pytest.raises(UsageError, match=r"feature 'res9', but res2, res5: set model\.feature"):
        backbone = build_context_resnet(depth=18, out_features=["res2", "res5"])
        ImageClassifier(backbone, feature="res9", num_classes=2, pixel_mean=MEAN, pixel_std=STD)
    with pytest.raises(UsageError, match="images, not clips"):
        model.example_inputs((8, 224, 224))


@pytest.mark.parametrize("kind", ["segmentor", "detector"])
def test_its_weights_start_a_segmentor_and_a_detector(kind, tmp_path, caplog):
    narrow = {"stem_out_channels": 8, "res2_out_channels": 8}
    trained = classifier(context={"name": "gc"}, inserts={"res4": "all"}, **narrow)
    torch.save({"model": trained.state_dict()}, tmp_path / "model_final.pth")
    options = dict(SEGMENTOR if kind == "segmentor" else DETECTOR)
    options |= {"MODEL.RESNETS.STEM_TYPE": "basic", "MODEL.RESNETS.NORM": "BN"}
    options |= {"MODEL.BACKBONE.FREEZE_AT": 0}
    options |= {"MODEL.RESNETS.CONTEXT.NAME": "gc", "MODEL.RESNETS.CONTEXT_STAGES.RES4": ["all"]}
    model = build(options, seed=1)
    reader = Checkpointer(model)
    reader.load(str(tmp_path / "model_final.pth"))
    own = model.backbone if kind == "segmentor" else model.backbone.bottom_up
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key
    assert not any("stem" in key or "res" in key for key in reader.unfilled)
    assert "classifier" in caplog.text or kind == "detector"


@pytest.mark.parametrize("strides_in_1x1", [False, True])
def test_a_run_finds_torchvisions_file(root, tmp_path, caplog, strides_in_1x1):
    """The whole way, from a config: what --eval-only does before it reads a picture."""
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    path = str(root / PROJECT / "configs/r50.py")
    strides = f"model.backbone.stride_in_1x1={str(strides_in_1x1).lower()}"
    spec = read_config(load_config(path, ["train.device=cpu", strides]), train=False)
    reader = Checkpointer(build_model(spec), channel_order=spec.channel_order)
    reader.load_whole(str(tmp_path / "resnet50.pth"))
    assert reader.unfilled == ()
    assert ("stride_in_1x1) False" in caplog.text) is strides_in_1x1

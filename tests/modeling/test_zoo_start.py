"""Detectors that start from Detectron2's model zoo: what is new, and that nothing else changes."""

import pickle

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling import build_model
from detectron2.modeling.backbone import resnet

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.checkpoint.detectron2_zoo import addresses
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block
from dnl_d2.modeling.backbone.residual import POSITIONS
from dnl_d2.modeling.from_config import build_from_config
from tests.checkpoint.test_resnets import blob_name
from tests.modeling.detectors import FPN_ANCHORS, ZOO, randomised, zoo_config

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
DEFORMABLE = "Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5"
INSERT = {
    "MODEL.RESNETS.CONTEXT.NAME": "dnl",
    "MODEL.RESNETS.CONTEXT_STAGES.RES3": ["all"],
    "MODEL.RESNETS.CONTEXT_STAGES.RES4": [-2],
    "MODEL.RESNETS.CONTEXT_STAGES.RES5": [-1],
}
IDENTITIES = [n for n in CONTEXT_BLOCKS if build_context_block(n, 8).identity_at_init]
BLOCKS = {f"res3.{i}.context" for i in range(4)} | {"res4.4.context", "res5.2.context"}
RGB_MEAN, RGB_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PIXELS = {"MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}  # as the zoo's
SIZES = [(64, 80), (72, 64)]


def build(name=MASK_RCNN, *settings, twin=True):
    torch.manual_seed(1)
    keys = (FPN_ANCHORS, PIXELS, *settings)
    return build_model(zoo_config(f"{name}.yaml", *keys, twin=twin)).eval()


def write(path, model, **rest):
    """A file as the zoo has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.numpy() for key, value in model.items()}
    content = {"model": state, "__author__": "Detectron2 Model Zoo", **rest}
    path.write_bytes(pickle.dumps(content))
    return str(path)


def cached(folder, name):
    """Where Detectron2 looks for a downloaded file."""
    return folder / "detectron2" / addresses()[name].removeprefix("detectron2://")


def load(model, path):
    checkpointer = Checkpointer(model)
    checkpointer.resume_or_load(path, resume=False)
    return checkpointer


@torch.no_grad()
def detections(model, *, together=False):
    """Boxes, scores, classes and masks of two images, one by one as in evaluation."""
    generator = torch.Generator().manual_seed(2)
    images = [(torch.rand(3, *size, generator=generator) * 255).round() for size in SIZES]
    batch = [{"image": x, "height": x.shape[1], "width": x.shape[2]} for x in images]
    outputs = model(batch) if together else [model([image])[0] for image in batch]
    found = [output["instances"] for output in outputs]
    assert all(len(instances) for instances in found)
    return [(i.pred_boxes.tensor, i.scores, i.pred_classes, i.pred_masks) for i in found]


def assert_same_bits(found, expected):
    for image, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(image, other, strict=True))


@pytest.fixture(scope="module")
def theirs():
    """Detectron2's own model, which stands for the trained one."""
    model = randomised(build(twin=False)).eval()
    with torch.no_grad():
        model.backbone.bottom_up.stem.conv1.weight.div_(64)  # pixels are not divided
    return model


@pytest.fixture(scope="module")
def files(theirs, tmp_path_factory):
    """The same weights in every way that they can be named."""
    folder = tmp_path_factory.mktemp("zoo")
    state = theirs.state_dict()
    torch.save({"model": state}, folder / "model_final.pth")
    write(cached(folder, MASK_RCNN), state)
    return folder, {
        "pkl": write(folder / "model_final.pkl", state),
        "pth": str(folder / "model_final.pth"),
        "address": addresses()[MASK_RCNN],
        "full name": f"{MASK_RCNN}.yaml",
        "short name": "mask_rcnn_R_50_FPN_3x",
    }


@pytest.mark.parametrize("kind", ["pkl", "pth", "address", "full name", "short name"])
def test_only_the_blocks_are_new(kind, theirs, files, monkeypatch):
    folder, names = files
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    ours = build(MASK_RCNN, INSERT)
    reader = load(ours, names[kind])
    blocks = [name for name in ours.state_dict() if ".context." in name]
    assert sorted(reader.unfilled) == sorted(blocks)
    found = {n.rpartition(".context.")[0].removeprefix("backbone.bottom_up.") for n in blocks}
    assert {f"{place}.context" for place in found} == BLOCKS
    state = ours.state_dict()
    assert state.keys() - set(blocks) == theirs.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", IDENTITIES)
def test_detections_stay_to_the_last_bit(name, position, theirs, files):
    block = {"MODEL.RESNETS.CONTEXT.NAME": name, "MODEL.RESNETS.CONTEXT_POSITION": position}
    ours = build(MASK_RCNN, INSERT, block)
    load(ours, files[1]["pkl"])
    assert_same_bits(detections(ours), detections(theirs))


def test_a_padded_batch_stays_too_where_padding_is_not_masked(theirs, files):
    ours = build(MASK_RCNN, INSERT, {"MODEL.RESNETS.CONTEXT_MASK_PADDING": False})
    load(ours, files[1]["pkl"])
    assert_same_bits(detections(ours, together=True), detections(theirs, together=True))


@pytest.mark.parametrize(
    "spec",
    [
        *({"NAME": "dnl", "PRESET": preset} for preset in ("paper-det", "paper-seg", "paddleseg")),
        *({"NAME": name} for name in CONTEXT_BLOCKS if name not in IDENTITIES),
    ],
    ids=lambda spec: "-".join(spec.values()),
)
def test_other_blocks_change_detections(spec, theirs, files):
    """As published: a unary term, or layers behind the attention, act from the start."""
    block = build_context_block({key.lower(): value for key, value in spec.items()}, 8)
    assert not block.identity_at_init
    keys = {f"MODEL.RESNETS.CONTEXT.{key}": value for key, value in spec.items()}
    ours = build(MASK_RCNN, INSERT, keys)
    load(ours, files[1]["pkl"])
    found = detections(ours)
    assert all(part.isfinite().all() for image in found for part in image)
    before = detections(theirs)
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(before, found, strict=True))


def test_evaluation_of_a_model_with_new_blocks_is_refused(files, tmp_path):
    with pytest.raises(UsageError, match=r"parameters are missing.*\.context\."):
        Checkpointer(build(MASK_RCNN, INSERT)).load_whole(files[1]["pkl"])


def test_deformable_weights_of_the_zoo_fill_the_model(tmp_path, monkeypatch):
    def operator(*args, deformable_groups, **options):  # Detectron2's own may not be compiled
        return Conv2d(*args, **options)

    monkeypatch.setattr(resnet, "DeformConv", operator)
    theirs = randomised(build(DEFORMABLE, twin=False))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    write(cached(tmp_path, DEFORMABLE), theirs.state_dict())
    ours = build(DEFORMABLE)
    Checkpointer(ours).load_whole("mask_rcnn_R_50_FPN_3x_dconv_c3-c5")
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert sum("conv2_offset" in key for key in state) == 2 * (4 + 6 + 3)
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())
    detections(ours)


@pytest.mark.parametrize("kind", ["MSRA", "torchvision"])
def test_imagenet_files_fill_the_whole_resnet(kind, tmp_path, monkeypatch):
    name = f"ImageNetPretrained/{kind}/R-50"
    plain = PIXELS
    if kind == "torchvision":
        plain = {"MODEL.PIXEL_MEAN": RGB_MEAN, "MODEL.PIXEL_STD": RGB_STD}
    source = randomised(build(MASK_RCNN, plain)).backbone.bottom_up.state_dict()
    if kind == "MSRA":  # statistics are part of scale and shift: mean 0, variance 1
        blobs = {blob_name(k): v for k, v in source.items() if "running" not in k}
        state = blobs | {"fc1000_w": torch.ones(10, 64)}
        for key, value in source.items():
            if "running" in key:
                value.fill_(float(key.endswith("running_var")))
    else:
        state = source | {"fc.weight": torch.ones(10, 64)}
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    write(cached(tmp_path, name), state, matching_heuristics=True)
    if kind == "MSRA":  # Caffe2's files are the blobs themselves
        blobs = {key: value.numpy() for key, value in state.items()}
        cached(tmp_path, name).write_bytes(pickle.dumps(blobs, protocol=2))
    ours = build(MASK_RCNN, plain, INSERT)
    reader = load(ours, f"{name}.pkl")
    new = [k for k in reader.unfilled if k.startswith("backbone.bottom_up.")]
    assert new and all(".context." in key for key in new)
    loaded = ours.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in source.items())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("BACKBONE.FREEZE_AT", "3", r"res3 is frozen \(freeze_at=3\) .* block,.*freeze_at=2"),
        (
            "RESNETS.OUT_FEATURES",
            "['res2','res3']",
            "at stage 'res4': this backbone has res2, res3",
        ),
        ("RESNETS.CONTEXT_STAGES.RES6", "[0]", "RES6"),
        ("RESNETS.CONTEXT_STAGES.RES4", "[6]", r"res4\[6\]: res4 has 6 blocks, use -6 to 5"),
    ],
)
def test_wrong_places_from_a_file_are_one_clear_line(key, value, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"""\
_BASE_: {ZOO / MASK_RCNN}.yaml
MODEL:
  BACKBONE: {{NAME: build_context_resnet_fpn_backbone}}
  RESNETS: {{CONTEXT: {{NAME: gc}}, CONTEXT_STAGES: {{RES3: [all], RES4: [-2]}}}}
""")
    assert build_from_config(str(path), device="meta").backbone.bottom_up.res4[4].context
    with pytest.raises(UsageError, match=message) as error:
        build_from_config(str(path), [f"MODEL.{key}", value], device="meta")
    assert "\n" not in str(error.value)

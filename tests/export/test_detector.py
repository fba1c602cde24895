"""Detectors as traced graphs, beside the models themselves."""

import json

import pytest
import torch
from detectron2.modeling import build_model

from dnl_d2 import optimize_for_inference
from dnl_d2.errors import UsageError
from dnl_d2.export import checking
from dnl_d2.export.detector import detector_graph
from dnl_d2.export.formats import FORMATS
from dnl_d2.export.graph import Graph
from dnl_d2.export.rcnn import rcnn_graph
from tests.modeling.detectors import FPN_ANCHORS, INSERT, zoo_config

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
KEYPOINTS = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
SHAPES = ((1, 61, 77), (1, 97, 133), (1, 160, 90))
# Padding is found and kept out of the block, as in the recipes.
MEAN = {"MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}


def detector(name=MASK_RCNN, **keys):
    """Random everywhere, so that no block is an identity."""
    torch.manual_seed(0)
    anchors = FPN_ANCHORS if name != RETINANET else {}
    model = build_model(zoo_config(name, anchors, INSERT, MEAN, keys)).eval()
    for key, parameter in model.named_parameters():
        if "context" in key and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
        if key.endswith(("mask_head.predictor.weight", "cls_score.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def exported(model, format, **options):
    graph = detector_graph(model, dtype=torch.uint8, **options)
    fast = detector_graph(optimize_for_inference(model), dtype=torch.uint8, **options)
    return graph, FORMATS[format].build(fast, json.dumps({"task": "detection"}), None)


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_objects_are_those_of_the_model(format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    graph, content = exported(detector(), format)
    assert list(graph.outputs) == ["boxes", "scores", "classes", "masks"]
    run = FORMATS[format].load(content)
    images = checking.inputs(graph, SHAPES)
    found = checking.compare(graph, run, images)
    assert found.shapes == [(3, 61, 77), (3, 97, 133), (3, 160, 90)]
    assert found.compared > 10 and found.different <= 1
    assert found.largest["boxes"] < 0.01 and found.largest["masks"] < 1e-4
    boxes, *_, masks = run(images[0])
    assert boxes.shape == (5, 4) and masks.shape == (5, 1, 28, 28) and masks.std() > 0.01


@pytest.mark.slow
def test_a_program_of_torch_export():
    """Detectron2's own inference, written anew, beside itself."""
    model = detector()
    graph = detector_graph(model, dtype=torch.uint8)
    again = rcnn_graph(optimize_for_inference(model), dtype=torch.uint8)
    content = FORMATS["torch-export"].build(again, "{}", None)
    images = checking.inputs(graph, ((1, 97, 133), (1, 160, 90)))
    found = checking.compare(graph, FORMATS["torch-export"].load(content), images)
    assert found.compared == 10 and found.different <= 1
    assert found.largest["boxes"] < 0.01 and found.largest["masks"] < 1e-4
    with pytest.raises(UsageError, match=r"Faster or Mask R-CNN of .*: use onnx or torchscript"):
        rcnn_graph(detector(RETINANET))


def test_where_there_is_nothing():
    keys = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 1.0}
    graph, content = exported(detector(**keys), "torchscript")
    run = FORMATS["torchscript"].load(content)
    boxes, scores, classes, masks = run(checking.inputs(graph, SHAPES)[0])
    assert boxes.shape == (0, 4) and len(scores) == len(classes) == len(masks) == 0
    found = checking.compare(graph, run, checking.inputs(graph, SHAPES))
    assert found.compared == 0 and "there was nothing to compare" in str(found)


def test_retinanet():
    graph, content = exported(detector(RETINANET), "torchscript")
    assert list(graph.outputs) == ["boxes", "scores", "classes"]
    found = checking.compare(
        graph, FORMATS["torchscript"].load(content), checking.inputs(graph, SHAPES)
    )
    assert found.compared > 10 and found.different <= 1


def test_another_detector_is_told_from_the_model():
    graph, content = exported(detector(), "torchscript")
    run = FORMATS["torchscript"].load(content)
    images = checking.inputs(graph, SHAPES[:1])

    def altered(change):
        return lambda x: change(*run(x))

    with pytest.raises(UsageError, match="5 of 5 objects have no counterpart"):
        checking.compare(graph, altered(lambda b, s, c, m: (b + 2, s, c, m)), images)
    with pytest.raises(UsageError, match="1 of 5 objects have no counterpart"):
        checking.compare(graph, altered(lambda b, s, c, m: (b[1:], s[1:], c[1:], m[1:])), images)
    with pytest.raises(UsageError, match="5 of 10 objects have no counterpart"):
        checking.compare(graph, altered(lambda *all: tuple(t.repeat_interleave(2, 0) for t in all)),
                         images)  # fmt: skip
    with pytest.raises(UsageError, match=r"masks differ by 0\."):
        checking.compare(graph, altered(lambda b, s, c, m: (b, s, c, 1 - m)), images)


@pytest.mark.parametrize(("expected", "found"), [(0, 3), (1, 0), (3, 0)])
def test_objects_that_only_one_of_the_two_finds(expected, found):
    def objects(count):
        return lambda _: (torch.full((count, 4), 9.0), torch.ones(count), torch.zeros(count))

    outputs = {name: {0: "objects"} for name in ("boxes", "scores", "classes")}
    image = torch.zeros(3, 8, 8)
    graph = Graph("detection", objects(expected), image, "image", {}, outputs)
    assert checking.compare(graph, objects(expected), [image]).different == 0
    with pytest.raises(UsageError, match="objects have no counterpart"):
        checking.compare(graph, objects(found), [image])


def test_the_last_of_objects_of_one_score():
    """Four objects, of whom the last two could be others of the same score; the first could not."""
    boxes = 40.0 * torch.arange(8)[:, None].expand(8, 4)
    scores = torch.tensor([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])

    def objects(*chosen):
        index = torch.tensor(chosen)
        return lambda _: (boxes[index], scores[index], torch.zeros(len(chosen)))

    outputs = {name: {0: "objects"} for name in ("boxes", "scores", "classes")}
    image = torch.zeros(3, 8, 8)
    graph = Graph("detection", objects(0, 1, 2, 3), image, "image", {}, outputs)
    assert checking.compare(graph, objects(0, 1, 5, 4), [image]).different == 2
    for others in ((0, 2, 3, 4), (0, 1, 2), (0, 1, 2, 3, 4), (4, 5, 6, 7)):
        with pytest.raises(UsageError, match="objects have no counterpart"):
            checking.compare(graph, objects(*others), [image])


@pytest.mark.slow
def test_keypoints(capfd):
    graph = detector_graph(detector(KEYPOINTS), dtype=torch.uint8)
    assert list(graph.outputs) == ["boxes", "scores", "classes", "keypoints"]
    run = FORMATS["torchscript"].load(FORMATS["torchscript"].build(graph, "{}", None))
    found = checking.compare(graph, run, checking.inputs(graph, SHAPES[:2]))
    assert found.compared > 5 and found.largest["keypoints"] < 0.01
    pytest.importorskip("onnxscript")
    with pytest.raises(Exception, match="advanced indexing"):
        FORMATS["onnx"].build(graph, "{}", None)
    assert capfd.readouterr().out == ""  # not the graph


def test_panoptic_models_are_not_taken():
    model = detector("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")
    with pytest.raises(UsageError, match="PanopticFPN predicts sem_seg, instances, panoptic_seg"):
        detector_graph(model)

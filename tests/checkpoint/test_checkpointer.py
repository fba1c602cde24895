import logging
import os
import pickle

import pytest
import torch
from detectron2.modeling import build_model

from dnl_d2.checkpoint import Checkpointer, convert_back, get_source
from dnl_d2.checkpoint.describe.architecture import describe
from dnl_d2.errors import UsageError
from tests.checkpoint.models import DETECTOR, SEGMENTOR, build, config, randomised

BGR = {
    "INPUT__FORMAT": "BGR",
    "MODEL__PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL__PIXEL_STD": [1.0, 1.0, 1.0],
}
INSERT = {
    "MODEL__RESNETS__CONTEXT__NAME": "gc",
    "MODEL__RESNETS__CONTEXT_STAGES__RES4": [-1],
}


def mmseg_file(model, path, **meta):
    state = convert_back(model.state_dict(), get_source("mmseg")).state
    torch.save({"state_dict": state, "meta": meta}, path)
    return str(path)


def load(model, path, **options) -> Checkpointer:
    checkpointer = Checkpointer(model, **options)
    checkpointer.resume_or_load(str(path), resume=False)
    return checkpointer


def logits(model, image):
    with torch.no_grad():
        return model([{"image": image, "height": 33, "width": 41}])[0]["sem_seg"]


IMAGE = (torch.rand(3, 33, 41, generator=torch.Generator().manual_seed(1)) * 255).round()


def test_a_public_file_gives_the_published_outputs(tmp_path):
    published, ours = build(SEGMENTOR), build(SEGMENTOR, seed=1)
    assert not torch.allclose(logits(published, IMAGE), logits(ours, IMAGE))
    reader = load(ours, mmseg_file(published, tmp_path / "public.pth"))
    assert reader.unfilled == ()
    assert torch.equal(logits(published, IMAGE), logits(ours, IMAGE))


@pytest.mark.parametrize("converted", [False, True])
def test_channel_order_and_scale_of_the_input_are_adapted(converted, tmp_path, caplog):
    published, ours = build(SEGMENTOR), build(SEGMENTOR, seed=1, **BGR)
    path = mmseg_file(published, tmp_path / "public.pth")
    if converted:
        from dnl_d2.checkpoint.convert_file import convert_file

        convert_file(path, str(tmp_path / "ours.safetensors"))
        path = tmp_path / "ours.safetensors"
    with caplog.at_level(logging.INFO):
        load(ours, path, channel_order="BGR")
    assert "input channels swapped (published as RGB) and scaled" in caplog.text
    torch.testing.assert_close(
        logits(ours, IMAGE.flip(0)), logits(published, IMAGE), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            logits(ours, IMAGE), logits(published, IMAGE), rtol=1e-2, atol=1e-2
        )


def test_another_mean_or_alignment_is_warned_about(tmp_path, caplog):
    ours = build(SEGMENTOR, seed=1, MODEL__PIXEL_MEAN=[127.5, 127.5, 127.5])
    path = mmseg_file(build(SEGMENTOR), tmp_path / "public.pth", config="align_corners=True")
    load(ours, path)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "INPUT.FORMAT (LazyConfig: the mappers' image_format) RGB" in warning
    assert "[123.675, 116.28, 103.53], now [127.5, 127.5, 127.5]" in warning
    assert "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS (LazyConfig: align_corners) True" in warning


def test_the_files_own_normalisation_counts(tmp_path, caplog):
    text = "mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False"
    published = build(SEGMENTOR, **BGR)
    ours = build(SEGMENTOR, seed=1)
    load(ours, mmseg_file(published, tmp_path / "caffe.pth", config=text), channel_order="RGB")
    assert not [r for r in caplog.records if "swapped" in r.message and r.levelname != "INFO"]
    torch.testing.assert_close(
        logits(ours, IMAGE), logits(published, IMAGE.flip(0)), rtol=1e-4, atol=1e-4
    )


def test_a_classifier_of_other_classes_is_skipped_by_name(tmp_path, caplog):
    ours = build(SEGMENTOR, seed=1, MODEL__SEM_SEG_HEAD__NUM_CLASSES=11)
    before = ours.sem_seg_head.predictor.weight.detach().clone()
    reader = load(ours, mmseg_file(build(SEGMENTOR), tmp_path / "public.pth"))
    assert set(reader.unfilled) == {
        f"sem_seg_head.{part}predictor.{p}"
        for part in ("", "auxiliary.")
        for p in ("weight", "bias")
    }
    assert "sem_seg_head.predictor.weight" in caplog.text
    assert "(19, 16, 1, 1) in the checkpoint but (11, 16, 1, 1) in the model" in caplog.text
    assert torch.equal(ours.sem_seg_head.predictor.weight, before)


def test_a_segmentation_backbone_serves_a_detector_with_fpn(tmp_path):
    published = build(SEGMENTOR, MODEL__RESNETS__STEM_TYPE="basic")
    changes = {"MODEL__RESNETS__NORM": "BN", "MODEL__BACKBONE__FREEZE_AT": 0}
    detector = build(DETECTOR, seed=1, **changes)
    reader = load(detector, mmseg_file(published, tmp_path / "public.pth"))
    assert not any("bottom_up" in key for key in reader.unfilled)
    mine, theirs = detector.backbone.bottom_up, published.backbone
    for key, value in theirs.state_dict().items():
        if key == "stem.conv1.weight":  # another channel order and scale
            continue
        assert torch.equal(mine.state_dict()[key], value), key


def test_zoo_files_fill_all_but_the_inserted_blocks(tmp_path):
    zoo = build(DETECTOR)
    arrays = {key: value.numpy() for key, value in zoo.state_dict().items()}
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4).numpy()
    with open(tmp_path / "model_final.pkl", "wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, file, protocol=2)
    model = randomised(build_model(config(DETECTOR)), seed=1)
    inserted = build_model(config(DETECTOR, **INSERT)).eval()
    for target in (model, inserted):
        reader = load(target, tmp_path / "model_final.pkl")
        new = [key for key in target.state_dict() if ".context." in key]
        assert set(reader.unfilled) == set(new)
    assert new
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        expected, got = zoo.backbone(image), inserted.backbone(image)
    for level, value in expected.items():
        assert torch.equal(got[level], value), level  # a zero block is an identity


def test_bare_backbones_match_by_detectron2s_heuristics(tmp_path):
    model = build(DETECTOR)
    bare = {
        key.removeprefix("backbone.bottom_up."): value.numpy()
        for key, value in model.state_dict().items()
        if key.startswith("backbone.bottom_up.")
    }
    content = {"model": bare, "__author__": "torchvision", "matching_heuristics": True}
    with open(tmp_path / "R-18.pkl", "wb") as file:
        pickle.dump(content, file)
    target = build(DETECTOR, seed=1, **INSERT)
    reader = load(target, tmp_path / "R-18.pkl")
    missing = {key for key in reader.unfilled if "bottom_up" in key}
    assert missing == {key for key in target.state_dict() if ".context." in key}
    assert torch.equal(
        target.backbone.bottom_up.res5[1].conv2.weight,
        model.backbone.bottom_up.res5[1].conv2.weight,
    )


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with open(tmp_path / "R-50.pkl", "wb") as file:
        pickle.dump({"model": Runs(), "__author__": "x"}, file)
    with pytest.raises(UsageError, match=r"MODEL.WEIGHTS: .*R-50.pkl: refused.*--trust-pickle"):
        load(build(DETECTOR), tmp_path / "R-50.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_another_model_is_named(tmp_path, caplog):
    path = mmseg_file(build(SEGMENTOR), tmp_path / "public.pth")
    other = build(SEGMENTOR, MODEL__SEM_SEG_HEAD__CONTEXT__NAME="nl", MODEL__RESNETS__DEPTH=34)
    with pytest.raises(UsageError, match=r"seem to be of ResNet-18 \(v1c stem\), DNL head"):
        Checkpointer(other, str(tmp_path)).load_whole(path)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]  # the error says it
    load(other, path)  # to learn from what fits
    (lacking,) = [r.message for r in caplog.records if "not in the weights" in r.message]
    assert len(lacking.splitlines()) == 1 and "more" in lacking
    torch.save({"state_dict": {"features.0.weight": torch.zeros(1)}}, tmp_path / "vgg.pth")
    with pytest.raises(UsageError, match=r"vgg.pth: .*seems to be a VGG"):
        load(other, tmp_path / "vgg.pth")


@pytest.mark.parametrize("base", [SEGMENTOR, DETECTOR])
def test_weights_of_a_wholly_different_model_are_refused(base, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save({"model": build(base, MODEL__RESNETS__RES2_OUT_CHANNELS=16).state_dict()}, path)
    with pytest.raises(UsageError) as error:
        load(build(base), path)
    said = str(error.value)
    assert said.startswith(f"MODEL.WEIGHTS: {path}: ") and "\n" not in said
    assert "more than half of those that both have, have another shape, such as" in said
    kind = {"ContextSegmentor": "DNL head, 19 classes", "GeneralizedRCNN": "R-CNN, 3 classes"}
    assert said.count(kind[base["MODEL.META_ARCHITECTURE"]]) == 2


def test_evaluation_without_a_checkpoint_to_resume_names_the_folder(tmp_path):
    with pytest.raises(UsageError, match=rf"there is no checkpoint in {tmp_path} \(OUTPUT_DIR"):
        Checkpointer(build(SEGMENTOR), str(tmp_path)).load_whole("", resume=True)


def test_an_unknown_model_is_called_one():
    state = build(DETECTOR).state_dict()
    gone = {k: v for k, v in state.items() if "fpn_output" not in k}
    assert describe(gone).startswith("an unknown model (the weights lack 'backbone.fpn_output2")
    assert describe({}).startswith("an unknown model (a ResNet with 0, 0, 0, 0 blocks")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "model.module."])
def test_files_of_wrapped_models_are_loaded_whole(prefix, tmp_path):
    model = build(SEGMENTOR)
    state = {f"{prefix}{key}": value + 1 for key, value in model.state_dict().items()}
    torch.save({"model_state_dict": state}, tmp_path / "wrapped.pth")
    checkpointer = load(model, tmp_path / "wrapped.pth")
    assert checkpointer.unfilled == ()


def test_a_file_with_a_compiled_part_is_loaded_whole(tmp_path):
    model = build(SEGMENTOR)
    state = model.state_dict()
    compiled = {key.replace("backbone.", "backbone._orig_mod."): v for key, v in state.items()}
    torch.save({"model": compiled}, tmp_path / "part.pth")
    assert load(model, tmp_path / "part.pth").unfilled == ()


def test_a_compiled_model_loads_its_own_file(tmp_path):
    model = torch.compile(build(SEGMENTOR))
    Checkpointer(model, str(tmp_path)).save("own")
    assert load(model, tmp_path / "own.pth").unfilled == ()

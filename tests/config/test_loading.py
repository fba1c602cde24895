"""Config files: all load and build, twins are twins, and mistakes are one line."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_backbone, build_model

from dnl_d2 import add_dnl_config
from dnl_d2.config.keys import context_block_spec
from dnl_d2.config.loading import load_config_file
from dnl_d2.data import SemSegMapper
from dnl_d2.engine import Trainer, load_config
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, block_arguments
from dnl_d2.modeling import ContextSegmentor, CrossEntropyLoss, DiceLoss, SumOfLosses
from dnl_d2.modeling.from_config import build_from_config
from tests.configs.twins import check_same_network, check_twins
from tests.meta import on_meta

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(file for file in CONFIGS.glob("*/*.yaml") if file.parent.name != "common")
YAMLS = [str(file.relative_to(CONFIGS)) for file in FILES]
# Those of COCO: tests/configs/test_coco_twins.py.
TWINS = [
    str(file.relative_to(CONFIGS))
    for file in FILES
    if file.with_suffix(".py").exists() and file.parent.name != "coco"
]
DNL = "camvid/dnl_r18w32-d8_4k_camvid-240x320"


def path(name):
    return str(CONFIGS / name)


def yaml_model(name):
    cfg = load_config(path(name))
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


def meta_model(name):
    cfg = load_config(path(name))
    cfg.MODEL.DEVICE = "meta"
    with on_meta():
        return build_model(cfg)


def described(augmentations):
    return [(type(a).__name__, {k: str(v) for k, v in vars(a).items()}) for a in augmentations.augs]


def test_there_are_configs():
    assert DNL + ".yaml" in TWINS
    assert len(TWINS) >= 25 and len(YAMLS) >= 110


@pytest.mark.parametrize("name", YAMLS)
def test_every_config_builds_on_the_meta_device(name):
    assert all(p.is_meta for p in meta_model(name).parameters())


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_the_same_network(name):
    cfg, twin = load_config(path(name)), load_config(path(name)[: -len(".yaml")] + ".py").model
    assert list(twin.pixel_mean) == cfg.MODEL.PIXEL_MEAN
    assert list(twin.pixel_std) == cfg.MODEL.PIXEL_STD
    with on_meta():
        other = instantiate(twin)
    check_same_network(meta_model(name), other)


def test_twins_have_equal_outputs():
    torch.manual_seed(0)
    ours = yaml_model(DNL + ".yaml").eval()
    twin = instantiate(load_config(path(DNL + ".py")).model).eval()
    twin.load_state_dict(ours.state_dict())
    batch = [{"image": torch.randint(0, 255, (3, 49, 65))}]
    with torch.no_grad():
        assert torch.equal(*(model(batch)[0]["sem_seg"] for model in (ours, twin)))


@pytest.mark.parametrize("name", TWINS)
def test_twins_train_alike(name):
    """Same schedule, optimiser, batch size, data, augmentation, evaluation period and seed."""
    stem = path(name)[: -len(".yaml")]
    ours, twin = load_config(stem + ".yaml"), load_config(stem + ".py")
    solver = ours.SOLVER
    block = torch.nn.ModuleDict({name: torch.nn.Conv2d(1, 1, 1) for name in ("query", "key")})
    weights = torch.nn.ModuleDict({"context_block": block, "n": torch.nn.BatchNorm2d(1)})
    optimizer = check_twins(ours, twin, weights)
    scheduler = Trainer.build_lr_scheduler(ours, optimizer)
    multiplier = instantiate(twin.lr_multiplier)
    base = solver.BASE_LR
    for iteration in range(0, 120):
        expected = optimizer.param_groups[0]["lr"]
        assert multiplier(iteration / solver.MAX_ITER) * base == pytest.approx(expected)
        optimizer.step()
        scheduler.step()
    assert multiplier(1.0) * base == pytest.approx(solver.MIN_LR)
    loaders = twin.dataloader
    assert not ours.DATALOADER.ASPECT_RATIO_GROUPING
    for is_train, loader in ((True, loaders.train), (False, loaders.test)):
        mine, other = SemSegMapper(ours, is_train), instantiate(loader.mapper)
        assert described(mine.augmentations) == described(other.augmentations)
        for key in ("image_format", "ignore_value", "num_classes", "is_train"):
            assert getattr(mine, key) == getattr(other, key), key
        if not is_train:
            scales = mine.multi_scale_flip, other.multi_scale_flip
            assert vars(scales[0]) == vars(scales[1])
        if is_train:
            assert mine.cache is other.cache is None
            assert mine.dataset_ignore_label == other.dataset_ignore_label


def test_block_keys_come_from_the_blocks():
    cfg = get_cfg()
    add_dnl_config(cfg)
    node = cfg.MODEL.SEM_SEG_HEAD.CONTEXT
    for name in CONTEXT_BLOCKS:
        for argument in block_arguments(CONTEXT_BLOCKS.get(name)):
            assert argument.upper() in node
    assert context_block_spec(node) is None
    cfg.merge_from_list(
        ["MODEL.SEM_SEG_HEAD.CONTEXT.NAME", "dnl", "MODEL.SEM_SEG_HEAD.CONTEXT.TEMPERATURE", "0.2"]
    )
    assert context_block_spec(node) == {"name": "dnl", "temperature": 0.2}


def test_overrides_of_both_kinds_reach_the_block():
    cfg = load_config(path(DNL + ".yaml"), ["MODEL.SEM_SEG_HEAD.CONTEXT.TEMPERATURE", "0.1"])
    cfg.MODEL.DEVICE = "cpu"
    lazy = load_config(path(DNL + ".py"), ["model.sem_seg_head.context_block.temperature=0.1"])
    # C' = 128 / 2
    for model in (build_model(cfg), instantiate(lazy.model)):
        assert model.sem_seg_head.context_block.scale == pytest.approx(64**-0.5 / 0.1)


@pytest.mark.parametrize(
    "override",
    [
        "model.sem_seg_head.context_block.use_scale=False",  # an argument the config leaves out
        "model.sem_seg_head.dropout=0.0",
        "train.max_iter=7",
        "+train.note=mine",
    ],
)
def test_lazy_overrides_that_exist_or_are_meant(override):
    load_config(path(DNL + ".py"), [override])


@pytest.mark.parametrize(
    "text",
    [
        "epoch=3-step=100",
        "my runs/a (1)",
        "a,b",
        "it's",
        "x #1",
        "x{1}",
        "[1]/x",
        "50%",
        "ünï",
        "C:\\x",
    ],
)
def test_either_kind_takes_any_path(text):
    """Also what Hydra's grammar has other uses for."""
    folder = f"/tmp/{text}"
    assert load_config(path(DNL + ".py"), [f"train.output_dir={folder}"]).train.output_dir == folder
    assert folder == load_config(path(DNL + ".yaml"), ["OUTPUT_DIR", folder]).OUTPUT_DIR


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("", [], "name a config"),
        ("nowhere.yaml", [], "nowhere.yaml: no such file"),
        (DNL + ".yaml", ["MODEL.SEM_SEG_HEAD.CONTEXT.TEMPRATURE", "1"], "TEMPRATURE"),
        (DNL + ".yaml", ["MODEL.NOTHING", "1"], "Non-existent key: MODEL.NOTHING"),
        (DNL + ".yaml", ["SOLVER.MAX_ITR", "1"], r"did you mean SOLVER.MAX_ITER\?"),
        (
            DNL + ".yaml",
            ["SOLVER.NUM_CLASSES", "1"],
            "did you mean .*MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        ),
        (DNL + ".yaml", ["SOLVER.MAX_ITER"], "KEY value pairs"),
        (DNL + ".yaml", ["SOLVER.MAX_ITER", "many"], "MAX_ITER"),
        (DNL + ".py", ["train.max_itr=3"], "did you mean 'max_iter'"),
        (DNL + ".py", ["model.sem_seg_head.context_block.temprature=3"], "'temperature'"),
        (DNL + ".py", ["model.head.dropout=3"], "there is no 'model.head'"),
        (DNL + ".py", ["SOLVER.MAX_ITER", "3"], "key=value"),
        (DNL + ".py", ["train.max_iter=3", "--resume"], "'--resume'; options come before them"),
        (DNL + ".py", ["train.max_iter=[1,2"], r"'train.max_iter=\[1,2' cannot be used: "),
    ],
)
def test_mistakes_are_one_clear_line(name, overrides, message):
    with pytest.raises(UsageError, match=message) as error:
        load_config(path(name) if name else "", overrides)
    assert "\n" not in str(error.value)


NO_KEYS = "(empty|plain value|Non-existent|mismatch)"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.yaml", "MODEL:\n  SEM_SEG_HEAD:\n    NUM_CLASES: 3\n", "NUM_CLASES"),
        ("odd.yaml", "", rf"odd\.yaml: .*{NO_KEYS}"),
        ("odd.yaml", "MODEL: 3\n", rf"odd\.yaml: .*{NO_KEYS}"),
        ("leaf.yaml", "_BASE_: gone.yaml\n", r"gone\.yaml"),
        ("leaf.json", "{}", r"ends in \.yaml or \.py"),
    ],
)
def test_wrong_files_are_named(name, text, message, tmp_path):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_config(str(file))
    assert str(file) in str(error.value)


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_a_model_is_built_from_either_kind_of_file(suffix):
    model = build_from_config(path(DNL + suffix), device="meta")
    assert isinstance(model, ContextSegmentor) and all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("block", [{}, {"name": "dnl", "preset": "paper-det"}])
def test_fpn_backbones_are_twins(block):
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_context_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    twin = load_config(path("common/models/context_fpn.py")).backbone
    if block:
        cfg.MODEL.RESNETS.CONTEXT.NAME = block["name"]
        cfg.MODEL.RESNETS.CONTEXT.PRESET = block["preset"]
        cfg.MODEL.RESNETS.CONTEXT_STAGES.RES4 = [-2]
        cfg.MODEL.RESNETS.CONTEXT_STAGES.RES5 = ["all"]
        twin.bottom_up.context = block
        twin.bottom_up.inserts = {"res4": [-2], "res5": "all"}
    torch.manual_seed(0)
    ours, twin = build_backbone(cfg).eval(), instantiate(twin).eval()
    assert list(ours.state_dict()) == list(twin.state_dict())
    assert [p.requires_grad for p in ours.parameters()] == [
        p.requires_grad for p in twin.parameters()
    ]
    twin.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = ours(x), twin(x)
    assert list(got) == ["p2", "p3", "p4", "p5", "p6"]
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("stem", [DNL, "cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"])
def test_another_loss_may_take_the_place_of_a_twins(stem):
    twin = load_config(path(stem + ".py"), ["model.sem_seg_head.loss.class_weights=[1.0]"])
    assert twin.model.sem_seg_head.loss.class_weights == [1.0]
    losses = [L(CrossEntropyLoss)(), L(DiceLoss)(loss_weight=3.0)]
    for loss in (L(SumOfLosses)(losses=losses), L(DiceLoss)()):
        twin.model.sem_seg_head.loss = loss
        with torch.device("meta"):
            head = instantiate(twin.model).sem_seg_head
        assert type(head.loss) is loss["_target_"]
        assert isinstance(head.auxiliary.loss, CrossEntropyLoss)


@pytest.mark.parametrize("name", ["segmentor_r50_d8", "segmentor_r18w32_d8"])
def test_a_shared_model_needs_nothing_around_it(name):
    with torch.device("meta"):
        model = instantiate(LazyConfig.load(path(f"common/models/{name}.py")).model)
    assert model.pad_size == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  MAX_ITER: 1\nMODEL: {}\nSOLVER: {BASE_LR: 1.0}\n", "SOLVER .* 2 and 5"),
        ("SOLVER:\n  MAX_ITER: 1\n  MAX_ITER: 2\n", "MAX_ITER .* lines 3 and 4"),
        ("DATASETS: {FOLDERS: [{NAME: a, NAME: b}]}\n", "NAME .* lines 2 and 2"),
        ("DATASETS: {TRAIN: mine_train}\n", r"write a list, such as \[a, b\]"),
    ],
)
def test_a_key_that_is_there_twice_or_a_text_for_a_list_is_one_line(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {path(DNL)}.yaml\n{text}")
    with pytest.raises(UsageError, match=rf"mine\.yaml: .*{message}"):
        load_config(str(file))


def test_two_merges_in_a_mapping_are_both_taken(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "DATASETS:\n"
        "  COCO:\n"
        "    - &one {NAME: a, IMAGES: x}\n"
        "    - &two {NAME: b, JSON: y.json}\n"
        "    - {<<: *one, NAME: c, <<: *two}\n"
    )
    entries = load_config_file(str(file)).DATASETS.COCO
    assert entries[2] == {"NAME": "c", "IMAGES": "x", "JSON": "y.json"}


@pytest.mark.parametrize(
    "text", ["OUTPUT_DIR: &a [*a]\n", "MODEL: &a {BACKBONE: *a}\n", "[OUTPUT_DIR]: x\n"]
)
def test_yaml_that_leads_to_itself_or_has_a_list_as_key_is_one_line(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml: ") as error:
        load_config(str(file))
    assert "\n" not in str(error.value) and "unhashable type" not in str(error.value)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [PROOF]", "!!python/name:os.sep"])
@pytest.mark.parametrize("below", [False, True])
def test_code_in_a_config_is_not_run(tag, below, tmp_path):
    """Neither in the file nor in what it starts from, which Detectron2 would run."""
    proof = tmp_path / "ran"
    (tmp_path / "a.yaml").write_text(f"OUTPUT_DIR: {tag.replace('PROOF', str(proof))}\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n")
    with pytest.raises(UsageError, match="code in a config is not run") as error:
        load_config_file(str(tmp_path / ("b.yaml" if below else "a.yaml")))
    assert "\n" not in str(error.value) and not proof.exists()


@pytest.mark.parametrize("below", [False, True])
def test_aliases_that_stand_for_very_much(below, tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    (tmp_path / "b.yaml").write_text("_BASE_: [a.yaml]\n")
    with pytest.raises(UsageError, match=r"a.yaml: its aliases \(\*name\) stand for more"):
        load_config_file(str(tmp_path / ("b.yaml" if below else "a.yaml")))
    (tmp_path / "a.yaml").write_text("MODEL: &m\n  WEIGHTS: *m\n")
    with pytest.raises(UsageError, match="stand for more"):
        load_config_file(str(tmp_path / "a.yaml"))


def test_a_message_does_not_hold_all_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: [1, 2]\n")
    with pytest.raises(UsageError, match=r"for config key: SOLVER$") as error:
        load_config_file(str(tmp_path / "a.yaml"))
    assert len(str(error.value)) < 400 + len(str(tmp_path))

"""The YAML keys that dnl_d2 adds to Detectron2's config."""

from typing import Any

from detectron2.config import CfgNode

from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, block_arguments

FULL_MODEL = "full_model"  # SOLVER.CLIP_GRADIENTS.CLIP_TYPE: the norm of all gradients together
PUBLISHED_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of ms+flip


def add_dnl_config(cfg: CfgNode) -> None:
    """Adds every key of this library, with its default, to ``cfg``.

    Keys that are there keep their values: Detectron2's projects have some of the same names.
    """
    before = cfg.clone()
    _add_resnet(cfg.MODEL.RESNETS)
    _add_head(cfg.MODEL.SEM_SEG_HEAD)
    # MeanCascadeROIHeads: factor of all losses of each stage.
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS = (1.0, 0.5, 0.25)
    _add_input(cfg.INPUT)
    _add_solver(cfg.SOLVER)
    _add_test(cfg.TEST)
    # Labels of both splits are read and checked before training: at most this many per split,
    # spread evenly; 0 leaves the check out. Of datasets for detectors: sizes of this many images.
    cfg.DATASETS.CHECK_LABELS = 2000
    # Datasets of your own, for TRAIN and TEST: mappings with NAME, IMAGES and LABELS (folders;
    # relative: below $DETECTRON2_DATASETS), CLASSES (names, or a text file with one a line) and,
    # if wanted, COLORS (RGB per class), IGNORE_LABEL (255) and STEMS (a text file of the stems that
    # count, one a line). Without LABELS: to be predicted.
    cfg.DATASETS.FOLDERS = []
    # Datasets of your own for detectors: mappings with NAME, IMAGES (a folder) and JSON (a file of
    # annotations in COCO's form; relative: below $DETECTRON2_DATASETS) and, if wanted, KEYPOINTS
    # (names), KEYPOINT_FLIP_MAP and SKELETON (pairs of names) where the file does not tell them.
    cfg.DATASETS.COCO = []
    # Training is recorded at Weights & Biases too, in this project; empty: it is not. NAME of the
    # run: by default that of the output folder.
    cfg.WANDB = CfgNode({"PROJECT": "", "NAME": ""})
    _restore(cfg, before)


def _restore(cfg: CfgNode, before: CfgNode) -> None:
    for key, value in before.items():
        if isinstance(value, CfgNode):
            _restore(cfg[key], value)
        else:
            cfg[key] = value


def context_block_node() -> CfgNode:
    """NAME (empty: no block) and every argument of every registered block, upper-case.

    None stands for the block's own default. The keys come from the blocks' signatures, so a new
    block needs no line here, and a misspelt key is an error.
    """
    node = CfgNode()
    node.NAME = ""
    for name in CONTEXT_BLOCKS:
        for argument in block_arguments(CONTEXT_BLOCKS.get(name)):
            node[argument.upper()] = None
    return node


def context_block_spec(node: CfgNode) -> dict[str, Any] | None:
    """The node as :func:`dnl_d2.layers.build_context_block` takes it; None without a NAME."""
    arguments = {k.lower(): v for k, v in node.items() if k != "NAME" and v is not None}
    if not node.NAME:
        if arguments:
            raise UsageError(f"CONTEXT has {', '.join(arguments)} but no NAME: name a block")
        return None
    return {"name": node.NAME, **arguments}


def _add_resnet(resnet: CfgNode) -> None:
    # 32, 16 or 8; below 32 the last stages are dilated, their first block by half or in full.
    resnet.OUTPUT_STRIDE = 32
    resnet.HALVE_FIRST_DILATION = True
    # What strides in a shortcut: "conv" (the 1x1 convolution) or "avg_pool" (pooling before it;
    # with the v1c stem: ResNet-D, -V1d, -vd).
    resnet.SHORTCUT = "conv"
    # "basic": one 7x7 convolution; "v1c": three 3x3; "v1c-ceil": v1c whose max-pool rounds up.
    resnet.STEM_TYPE = "basic"
    # The block to insert, and in which residual blocks: lists such as [-2] or ["all"] by stage.
    resnet.CONTEXT = context_block_node()
    resnet.CONTEXT_STAGES = CfgNode({"RES2": [], "RES3": [], "RES4": [], "RES5": []})
    # "after_conv3" (on the residual branch) or "after_add" (before the last ReLU).
    resnet.CONTEXT_POSITION = "after_conv3"
    # Whether the padding of a batch stays out of these blocks. The published networks count it in.
    resnet.CONTEXT_MASK_PADDING = True


def _add_head(head: CfgNode) -> None:
    # ContextHead: the block after the first 3x3 convolution; no NAME is the FCN baseline.
    head.CONTEXT = context_block_node()
    head.NUM_CONVS = 2
    head.CONCAT_INPUT = True
    # AsymmetricHead: width of queries, keys and values, and the pyramid.
    head.ASYMMETRIC = CfgNode({"PROJECT_CHANNELS": 256, "POOL_SCALES": [1, 3, 6, 8]})
    # All heads.
    head.DROPOUT = 0.1
    head.ALIGN_CORNERS = False
    # False: logits are resized as by PaddleSeg's DNLNet (its align_mode 1).
    head.HALF_PIXEL_CENTERS = True
    # Weight of each term of the loss; 0 leaves it out. What follows is for the head itself: the
    # auxiliary head keeps plain cross entropy.
    head.LOSS_TERMS = CfgNode({"CROSS_ENTROPY": 1.0, "DICE": 0.0, "LOVASZ": 0.0})
    # Cross entropy: "valid" divides by the labelled pixels, "all" by all pixels (mmsegmentation).
    head.LOSS_AVERAGE = "valid"
    # One factor per class; empty for none.
    head.LOSS_CLASS_WEIGHTS = []
    # Online hard example mining: only pixels whose label has a probability below THRESHOLD count,
    # at least MIN_KEPT times the images of a batch. Without THRESHOLD (None) just that many.
    head.LOSS_OHEM = CfgNode({"ENABLED": False, "THRESHOLD": 0.7, "MIN_KEPT": 100000})
    # Dice: a ratio per class present in an image, or one per image (mmsegmentation 1.x).
    head.LOSS_DICE = CfgNode({"PER_CLASS": True})
    # Lovasz-softmax: over the classes "present" in the labels or "all", per batch or per image.
    head.LOSS_LOVASZ = CfgNode({"CLASSES": "present", "PER_IMAGE": False})
    # A second FCN head, for training only; a LOSS_WEIGHT of 0 leaves it out.
    head.AUXILIARY = CfgNode()
    head.AUXILIARY.LOSS_WEIGHT = 0.0
    head.AUXILIARY.IN_FEATURES = ["res4"]
    head.AUXILIARY.CONVS_DIM = 256
    head.AUXILIARY.NUM_CONVS = 1
    head.AUXILIARY.CONCAT_INPUT = False


def _add_input(inputs: CfgNode) -> None:
    # Images are scaled to fit (long side, short side) times a random ratio in training, times 1 in
    # testing. An empty size stands for each image's own. RATIO_STEP: ratios are drawn at this
    # distance (PaddleSeg); 0 for any.
    inputs.RESIZE = CfgNode({"BASE_SIZE": (), "RATIO_RANGE": (0.5, 2.0), "RATIO_STEP": 0.0})
    # With INPUT.CROP.ENABLED: no class covers more than this share of a crop (1.0: no limit).
    inputs.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # Photometric distortion of brightness, contrast, saturation and hue.
    inputs.COLOR_AUG_SSD = False
    # PaddleSeg's distortion: brightness, contrast and saturation by up to this share, and hue.
    inputs.COLOR_JITTER = 0.0
    # Segmentors: folder on a fast disk in which training keeps its pictures and labels decoded and,
    # where they are larger than RESIZE ever shows them, shrunk; empty for none.
    inputs.CACHE_DIR = ""


def _add_solver(solver: CfgNode) -> None:
    # "SGD", with MOMENTUM and NESTEROV, "Adam" or "AdamW". (Panoptic-DeepLab has this key too.)
    solver.OPTIMIZER = "SGD"
    # LR_SCHEDULER_NAME "PolyLR": (1 - progress) ** POLY_LR_POWER from BASE_LR down to MIN_LR.
    solver.POLY_LR_POWER = 0.9
    solver.MIN_LR = 1e-4
    # No weight decay for parameters in whose names one of these regular expressions is found.
    solver.NO_DECAY = []
    # Each process trains its share of IMS_PER_BATCH in this many parts, and steps once.
    solver.ACCUMULATE = 1
    # "float16" (with loss scaling) or "bfloat16" on CUDA; a CPU always uses bfloat16.
    solver.AMP.DTYPE = "float16"
    # Training keeps feature maps channels-last, in which convolutions are faster where a CPU or, in
    # mixed precision, a GPU computes them.
    solver.CHANNELS_LAST = False
    # Training runs a model that torch.compile has compiled; the first iterations then take minutes.
    solver.COMPILE = False
    # Steps in a row that are left out, where loss, gradients or statistics are not finite, before
    # the run ends; 0: it ends at the first.
    solver.SKIP_NONFINITE = 0
    # Of several processes: FIND_UNUSED_PARAMETERS for models of which some parameters may get no
    # gradient in an iteration; FP16_COMPRESSION exchanges gradients in fp16; BROADCAST_BUFFERS
    # gives all processes the main one's statistics before each iteration.
    solver.DDP = CfgNode(
        {
            "BROADCAST_BUFFERS": False,
            "FIND_UNUSED_PARAMETERS": False,
            "FP16_COMPRESSION": False,
        }
    )
    # The batch size that this config is meant for. With another IMS_PER_BATCH, learning rates scale
    # along and iterations and periods inversely. 0: nothing scales.
    solver.REFERENCE_BATCH_SIZE = 0
    # How many of the last checkpoints stay; 0 for all.
    solver.CHECKPOINTS_TO_KEEP = 0
    # Iterations between lines of the log and of metrics.json.
    solver.LOG_PERIOD = 20


def _add_test(test: CfgNode) -> None:
    # Of this many images of each test set, the same ones each time, an evaluation during training
    # shows the prediction beside the truth in TensorBoard; 0: none.
    test.EVAL_PICTURES = 4
    # What --eval-only and predictions compute in: float32; bfloat16, where processor or GPU have
    # it; float16, on GPUs. See dnl_d2.optimize_for_inference.
    test.PRECISION = "float32"
    # ContextSegmentor slides a window of (height, width) over the image; empty: the whole image at
    # once. Published: 769 and 513 for the 769x769 rows, 480 and 320 for PASCAL Context.
    # BATCH_SIZE is how many windows are predicted together. SUM_ON_CPU keeps the logits of the
    # whole image (classes x height x width x 4 bytes) in main memory, for images too large for the
    # GPU's.
    test.SLIDE = CfgNode({"WINDOW": (), "STRIDE": (), "BATCH_SIZE": 4, "SUM_ON_CPU": False})
    # Segmentors: with TEST.AUG.ENABLED, --eval-only averages the probabilities of every scale and,
    # with TEST.AUG.FLIP, of its mirror image ("ms+flip"). Scales refer to INPUT.RESIZE.BASE_SIZE,
    # as published; where that is empty, to each image's own size (mmsegmentation 1.x).
    test.AUG.SCALES = PUBLISHED_SCALES

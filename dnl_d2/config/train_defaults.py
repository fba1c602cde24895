"""The keys below ``train`` of a LazyConfig, and what each is where a config leaves it out."""

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

TRAIN: dict[str, Any] = dict(
    output_dir="output",
    init_checkpoint="",
    max_iter=40000,
    seed=-1,  # negative: another one each run
    # On CUDA "float16" (with loss scaling) or "bfloat16"; a CPU always uses bfloat16.
    amp=dict(enabled=False, dtype="float16"),
    # Gradients are scaled down where the norm of all together exceeds this; 0: never.
    clip_norm=0.0,
    accumulate=1,  # parts in which each process trains its share of a batch before it steps
    # Steps in a row that are left out, where loss, gradients or statistics are not finite, before
    # the run ends; 0: it ends at the first.
    skip_nonfinite=0,
    channels_last=False,  # whether training keeps feature maps channels-last
    # On CUDA convolutions are tried in several ways for each new size of pictures, and the fastest
    # stays: for crops of one size.
    cudnn_benchmark=False,
    compile=False,  # whether training runs a model that torch.compile has compiled
    # The batch size that a config is meant for. With another total_batch_size the learning rate
    # scales along, and iterations and periods inversely; 0: nothing scales.
    reference_batch_size=0,
    # Options of DistributedDataParallel, which several processes train in: find_unused_parameters
    # for models of which some parameters may get no gradient in an iteration.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=4000, max_to_keep=3),
    eval_period=4000,
    # Images of each test set, the same ones each time, of which an evaluation shows the prediction
    # beside the truth in TensorBoard; 0: none.
    eval_pictures=4,
    eval_precision="float32",  # of --eval-only and predictions: bfloat16, or float16 on GPUs
    log_period=20,
    check_labels=2000,  # labels per split to read and check before training; 0 for none
    device="cuda",
    # Recorded at Weights & Biases too, in this project; empty: it is not. The run's name is by
    # default that of the output folder.
    wandb=dict(project="", name=""),
)


def fill_train(cfg: DictConfig) -> None:
    """Adds to ``cfg.train``, if there is one, the keys that it lacks, or that are null."""
    train = cfg.get("train")
    if isinstance(train, DictConfig):
        _fill(train, TRAIN)


def _fill(node: DictConfig, defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        if node.get(key) is None:
            node[key] = copy.deepcopy(value)
        elif isinstance(value, Mapping) and isinstance(node[key], DictConfig):
            _fill(node[key], value)

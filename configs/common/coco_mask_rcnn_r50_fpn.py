"""Twin of coco_mask_rcnn_r50_fpn.yaml."""

from detectron2.config import LazyCall as L

from dnl_d2.config.loading import zoo_config
from dnl_d2.engine import multi_step, warmed_up
from dnl_d2.evaluation import build_evaluator

from .models.mask_rcnn_r50_fpn import model
from .optim import optimizer
from .train import train

dataloader = zoo_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.augmentations[0].short_edge_length = (800,)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${dataloader.test.dataset.names}",
    output_dir="${train.output_dir}/inference",
)

# With --eval-only once more at these sizes of the shorter side, and mirrored.
dataloader.test_augmentation = dict(
    enabled=False,
    min_sizes=[400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
    max_size=4000,
    flip=True,
)

optimizer.lr = 0.02
optimizer.weight_decay = 1e-4
lr_multiplier = L(warmed_up)(
    scheduler=L(multi_step)(milestones=[60000, 80000], max_iter="${train.max_iter}"),
    factor=1 / 3,
    iterations=500,
    max_iter="${train.max_iter}",
)

train.init_checkpoint = "https://download.pytorch.org/models/resnet50-19c8e357.pth"
train.clip_norm = 35.0
train.max_iter = 90000
train.checkpointer.period = 7500
train.eval_period = 15000

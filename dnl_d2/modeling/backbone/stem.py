"""Stems by name, and one that detectron2 does not have."""

import torch.nn.functional as F
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.projects.deeplab.resnet import DeepLabStem
from torch import Tensor


class CeilPoolStem(DeepLabStem):
    """Three 3x3 convolutions and a max-pool that rounds sizes up, as torchcv and Caffe pool.

    It gives another size than :class:`DeepLabStem` where the convolutions' result is even: 257 in
    place of 256 columns for an image 1024 wide, 193 in both for 769.
    """

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True)


# V1c: three 3x3 convolutions in place of the 7x7 one, which is DeepLab's stem.
STEMS = {
    "basic": BasicStem,
    "v1c": DeepLabStem,
    "deeplab": DeepLabStem,
    "v1c-ceil": CeilPoolStem,
}

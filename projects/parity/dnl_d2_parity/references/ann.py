"""The network of MendelXu/ANN with its names, written down anew.

Dropout is left out: it has no parameters, but a number in its Sequential.
"""

import torch
import torch.nn.functional as F
from torch import nn

from dnl_d2_parity.references.torchcv import Backbone, conv3x3, enlarge, norm_relu

SCALES = (1, 3, 6, 8)


def pooled(maps):
    """``(N, C, H, W)`` -> ``(N, C, 110)``."""
    return torch.cat([F.adaptive_avg_pool2d(maps, s).flatten(2) for s in SCALES], 2)


def conv_norm_relu(in_channels, out_channels):
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), norm_relu(out_channels))


class Attention(nn.Module):
    """One "stage": queries from ``high``, pooled keys and values from ``low``."""

    def __init__(self, low, high, inter, shared, projection=conv_norm_relu):
        super().__init__()
        self.f_key = projection(low, inter)
        # shared: one module under two names, so a file holds its tensors twice
        self.f_query = self.f_key if shared else projection(high, inter)
        self.f_value = nn.Conv2d(low, inter, 1)
        self.W = nn.Conv2d(inter, high, 1)

    def forward(self, low, high):
        query = self.f_query(high)
        key, value = pooled(self.f_key(low)), pooled(self.f_value(low))
        logits = torch.einsum("nchw,ncs->nhws", query, key) / key.shape[1] ** 0.5
        return self.W(torch.einsum("nhws,ncs->nchw", logits.softmax(-1), value))


class Block(nn.Module):
    """AFNB (``shared`` off) or APNB."""

    def __init__(self, low, high, inter, shared):
        super().__init__()
        self.stages = nn.ModuleList([Attention(low, high, inter, shared)])
        norm = norm_relu(high) if shared else nn.BatchNorm2d(high)
        self.conv_bn_dropout = nn.Sequential(nn.Conv2d(2 * high, high, 1), norm)

    def forward(self, low, high):
        return self.conv_bn_dropout(torch.cat([self.stages[0](low, high), high], 1))


class AuthorsNetwork(nn.Module):
    """Published with depth 101, width 64, so 512 channels in the head and 256 in the attention."""

    def __init__(self, *, depth=50, width=8, classes=19, stem="prefix"):
        super().__init__()
        c4, c5, inner, inter = 16 * width, 32 * width, 8 * width, 4 * width
        self.backbone = Backbone(depth, width, stem)
        self.fusion = Block(c4, c5, inter, shared=False)
        self.context = nn.Sequential(
            conv3x3(c5, inner, bias=True), norm_relu(inner), Block(inner, inner, inter, shared=True)
        )
        self.cls = nn.Conv2d(inner, classes, 1)
        self.dsn = nn.Sequential(
            conv3x3(c4, inner, bias=True),
            norm_relu(inner),
            nn.Identity(),
            nn.Conv2d(inner, classes, 1),
        )

    def forward(self, image):
        """Logits, and those of the auxiliary head."""
        c4, c5 = self.backbone(image)
        out = self.context[1](self.context[0](self.fusion(c4, c5)))
        logits = self.cls(self.context[2](out, out))
        return enlarge(logits, image), enlarge(self.dsn(c4), image)

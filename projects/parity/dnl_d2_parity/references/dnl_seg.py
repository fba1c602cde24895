"""The networks of yinmh17/DNL-Semantic-Segmentation with their names, written down anew.

Dropout is left out: it has no parameters, but a number in its Sequential. The GC block, which the
repository takes from torchcv, is mmcv's.
"""

import math

import torch
import torch.nn.functional as F
from mmcv.cnn import ContextBlock
from torch import nn

from dnl_d2_parity.references.torchcv import Backbone, conv3x3, enlarge, named, norm_relu


class AuthorsBlock(nn.Module):
    """Pairwise term, unary term (``with_gc``) and what follows, one image after the other.

    Args:
        channels, inter: widths C and C'.
        divide: what the products are divided by, the temperature included.
        whitening: ``channel``, ``layer`` or ``none``.
        unary, pooled, out, out_norm: with_gc, downsample, use_out and out_bn of the configs.
    """

    def __init__(
        self,
        channels,
        inter,
        *,
        divide,
        whitening="channel",
        unary=True,
        pooled=False,
        out=False,
        out_norm=False,
    ):
        super().__init__()
        assert whitening in ("channel", "layer", "none")
        self.divide, self.whitening, self.pooled = divide, whitening, pooled
        self.conv_query = nn.Conv2d(channels, inter, 1)
        self.conv_key = nn.Conv2d(channels, inter, 1)
        self.conv_value = nn.Conv2d(channels, inter if out else channels, 1, bias=out)
        self.conv_out = nn.Conv2d(inter, channels, 1, bias=False) if out else None
        self.out_bn = nn.BatchNorm2d(channels) if out_norm else None
        self.conv_mask = nn.Conv2d(channels, 1, 1) if unary else None
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        source = F.max_pool2d(x, 2) if self.pooled else x
        rows = zip(x, source, strict=True)
        update = torch.stack([self.attend(image[None], low[None]) for image, low in rows])
        if self.conv_out is not None:
            update = self.conv_out(update)
        return x + (update if self.out_bn is None else self.out_bn(update))

    def attend(self, image, source):
        query = self.whiten(self.conv_query(image)[0].flatten(1))
        key = self.whiten(self.conv_key(source)[0].flatten(1))
        value = self.conv_value(source)[0].flatten(1)
        weights = torch.exp(F.log_softmax(query.T @ key / self.divide, dim=1))
        update = self.gamma * torch.einsum("qk,ck->cq", weights, value)
        if self.conv_mask is not None:
            mask = self.conv_mask(source).flatten()
            update = update + (value @ torch.exp(mask - mask.logsumexp(0)))[:, None]
        return update.unflatten(1, image.shape[2:])

    def whiten(self, rows):
        if self.whitening == "none":
            return rows
        return rows - (rows.mean(1, keepdim=True) if self.whitening == "channel" else rows.mean())


class AuthorsNetwork(nn.Module):
    """Backbone, head ``nlm`` (NL, DNL) or ``gcb`` (GC, FCN), auxiliary head ``dsn``.

    Args:
        block: ``gc``, None, or the arguments of :class:`AuthorsBlock`; there ``divide`` is a
            function of C'.
        depth, width, stem: as in :class:`Backbone`.
        classes: number of classes.
    """

    def __init__(self, block, *, depth=50, width=8, classes=19, stem="prefix"):
        super().__init__()
        deep = 32 * width
        inner = deep // 4
        self.backbone = Backbone(depth, width, stem)
        parts = {"conva": nn.Sequential(conv3x3(deep, inner), norm_relu(inner))}
        if block == "gc":
            parts["ctb"] = ContextBlock(inner, ratio=1 / 4)
        elif block is not None:
            divide = block["divide"](inner // 2)
            parts["ctb"] = AuthorsBlock(inner, inner // 2, **{**block, "divide": divide})
        parts["convb"] = nn.Sequential(conv3x3(inner, inner), norm_relu(inner))
        parts["bottleneck"] = nn.Sequential(
            conv3x3(deep + inner, inner),
            norm_relu(inner),
            nn.Identity(),
            nn.Conv2d(inner, classes, 1),
        )
        self.head = "gcb" if block in ("gc", None) else "nlm"
        self.add_module(self.head, named(**parts))
        conv = named(conv=conv3x3(deep // 2, inner), bn_relu=norm_relu(inner))
        self.dsn = nn.Sequential(conv, nn.Identity(), nn.Conv2d(inner, classes, 1))

    def forward(self, image):
        """Logits, and those of the auxiliary head."""
        c4, c5 = self.backbone(image)
        head = getattr(self, self.head)
        out = c5
        for name in ("conva", "ctb", "convb"):
            out = getattr(head, name, nn.Identity())(out)
        logits = head.bottleneck(torch.cat([c5, out], 1))
        return enlarge(logits, image), enlarge(self.dsn(c4), image)


def scaled(temperature):
    """sqrt(C') times a temperature."""
    return lambda inter: math.sqrt(inter) * temperature


def unscaled(inter):
    """The variant without weight decay divides by nothing."""
    return 1.0


# The published networks, and NL, GC and FCN as the repository's configs have them.
NETWORKS = {
    "temp_in": {"divide": scaled(0.05)},
    "nowd_in": {"divide": unscaled, "whitening": "none"},
    "nowd_ln": {"divide": unscaled, "whitening": "layer"},
    "ade20k_temp_in": {"divide": scaled(0.1)},
    "pairwise": {"divide": scaled(0.05), "unary": False},
    "nl": {
        "divide": scaled(1.0),
        "whitening": "none",
        "unary": False,
        "pooled": True,
        "out": True,
        "out_norm": True,
    },
    "gc": "gc",
    "fcn": None,
}

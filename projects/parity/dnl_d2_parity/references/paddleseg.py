"""PaddleSeg's DNLNet, GCNet and ANN on ResNet-vd once more, in plain PyTorch.

PaddlePaddle is too large for a test environment. What this restates are PaddleSeg's layers, one
by one, under its parameter names; it shares no code with ``dnl_d2``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2_parity.references.ann import Attention
from dnl_d2_parity.references.paddleseg_resnet import ConvNorm, ResNetVd


class DnlBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        inter = channels // 2
        self.g, self.theta, self.phi = (nn.Conv2d(channels, inter, 1) for _ in range(3))
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.conv_out = ConvNorm(inter, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        value, query, key = (f(x).flatten(2) for f in (self.g, self.theta, self.phi))
        query = query - query.mean(2, keepdim=True)
        key = key - key.mean(2, keepdim=True)
        logits = torch.einsum("ncq,nck->nqk", query, key) / query.shape[1] ** 0.5 / 0.05
        pairwise = torch.einsum("nqk,nck->ncq", logits.softmax(2), value)
        mask = self.conv_mask(x).flatten(1).softmax(1)
        unary = torch.einsum("nk,nck->nc", mask, value)
        return x + self.conv_out((pairwise + unary[..., None]).reshape(n, -1, h, w))


class DnlHead(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.dnl_block = DnlBlock(512)
        self.conv0 = ConvNorm(2048, 512, 3, bias=False)
        self.conv1 = ConvNorm(512, 512, 3, bias=False)
        self.cls = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(512, classes, 1))
        aux = ConvNorm(1024, 256, 3, bias=False)
        self.aux = nn.Sequential(aux, nn.Dropout2d(0.1), nn.Conv2d(256, classes, 1))
        self.conv_cat = ConvNorm(2048 + 512, 512, 3, bias=False)

    def forward(self, c3: Tensor, c4: Tensor) -> tuple[Tensor, Tensor]:
        out = self.conv1(self.dnl_block(self.conv0(c4)))
        return self.cls(self.conv_cat(torch.cat([c4, out], 1))), self.aux(c3)


class AuxLayer(nn.Module):
    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        self.conv_bn_relu = ConvNorm(inputs, width, 3)
        self.conv = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_bn_relu(x))


class GcBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        inter = channels // 4
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, inter, 1),
            nn.LayerNorm([inter]),
            nn.ReLU(),
            nn.Conv2d(inter, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, norm, relu, last = self.channel_add_conv
        mask = self.conv_mask(x).flatten(1).softmax(1)
        context = torch.einsum("nk,nck->nc", mask, x.flatten(2))
        hidden = norm(first(context[..., None, None]).flatten(1))
        return x + last(relu(hidden)[..., None, None])


class GcHead(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.conv_bn_relu1 = ConvNorm(2048, 512, 3)
        self.gc_block = GcBlock(512)
        self.conv_bn_relu2 = ConvNorm(512, 512, 3)
        self.conv_bn_relu3 = ConvNorm(2048 + 512, 512, 3)
        self.conv = nn.Conv2d(512, classes, 1)
        self.auxlayer = AuxLayer(1024, 256, classes)

    def forward(self, c3: Tensor, c4: Tensor) -> tuple[Tensor, Tensor]:
        out = self.conv_bn_relu2(self.gc_block(self.conv_bn_relu1(c4)))
        return self.conv(self.conv_bn_relu3(torch.cat([c4, out], 1))), self.auxlayer(c3)


class Afnb(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([Attention(1024, 2048, 256, False, ConvNorm)])
        self.conv_bn = ConvNorm(4096, 2048, relu=False)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.conv_bn(torch.cat([self.stages[0](low, high), high], 1))


class Apnb(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([Attention(512, 512, 256, True, ConvNorm)])
        self.conv_bn = ConvNorm(1024, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_bn(torch.cat([self.stages[0](x, x), x], 1))


class AnnHead(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.fusion = Afnb()
        self.context = nn.Sequential(ConvNorm(2048, 512, 3), Apnb())
        self.cls = nn.Conv2d(512, classes, 1)
        self.auxlayer = AuxLayer(1024, 512, classes)

    def forward(self, c3: Tensor, c4: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls(self.context(self.fusion(c3, c4))), self.auxlayer(c3)


HEADS = {"dnl": DnlHead, "gcnet": GcHead, "ann": AnnHead}


class Segmentor(nn.Module):
    """Normalised images -> logits of the head and of the auxiliary layer, at image size."""

    def __init__(self, method: str, depth: int, classes: int, align_corners: bool):
        super().__init__()
        self.backbone = ResNetVd(depth)
        self.head = HEADS[method](classes)
        self.align_corners = align_corners
        self.whole_cells = method == "dnl" and not align_corners  # Paddle's align_mode 1

    def forward(self, x: Tensor) -> list[Tensor]:
        logits = self.head(*self.backbone(x)[2:])
        return [self.resize(out, x.shape[2:]) for out in logits]

    def resize(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.whole_cells:
            return F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners)
        for axis in (2, 3):
            cells, pixels = x.shape[axis], size[axis - 2]
            place = torch.arange(pixels, dtype=torch.float64) * cells / pixels
            low = place.long()
            share = (place - low).to(x).reshape((-1, 1) if axis == 2 else (-1,))
            high = (low + 1).clamp(max=cells - 1)
            x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
        return x


def build(
    method: str, *, depth: int = 50, num_classes: int = 19, align_corners: bool = False
) -> Segmentor:
    """DNLNet (``dnl``), GCNet (``gcnet``) or ANN (``ann``), in evaluation mode."""
    return Segmentor(method, depth, num_classes, align_corners).eval()


def public_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics under Paddle's names."""
    return {_public(k): v for k, v in model.state_dict().items() if not k.endswith(_COUNTER)}


_COUNTER = "num_batches_tracked"


def _public(key: str) -> str:
    return key.replace(".running_mean", "._mean").replace(".running_var", "._variance")

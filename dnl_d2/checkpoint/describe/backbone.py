"""Telling the ResNet of some weights, what is inserted in it, and the FPN over it."""

from dnl_d2.checkpoint.describe.block import block_settings
from dnl_d2.checkpoint.describe.parameters import Keys, Settings
from dnl_d2.errors import UsageError

_BASIC: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def fpn_levels(keys: Keys) -> list[int]:
    """The stages of the ResNet that an FPN stands on."""
    return [level for level in (2, 3, 4, 5) if keys.has(f"backbone.fpn_output{level}.")]


def backbone_settings(keys: Keys) -> Settings:
    """MODEL.BACKBONE, MODEL.RESNETS and MODEL.FPN of weights.

    Raises:
        UsageError: there is no ResNet in them, or one of unknown depth.
    """
    fpn = keys.has("backbone.bottom_up.") or keys.has("backbone.fpn_")
    levels = fpn_levels(keys)
    if fpn and not levels:
        raise UsageError("the weights lack 'backbone.fpn_output2.weight' to fpn_output5")
    root = "backbone.bottom_up." if keys.has("backbone.bottom_up.") else "backbone."
    counts = tuple(keys.count(f"{root}res{s}.") for s in (2, 3, 4, 5))
    settings = _resnet(keys, root, counts)
    if fpn:
        features = [f"res{level}" for level in levels]
        settings |= {
            "MODEL.BACKBONE.NAME": "build_context_resnet_fpn_backbone",
            "MODEL.RESNETS.OUT_FEATURES": features,
            "MODEL.FPN.IN_FEATURES": features,
            "MODEL.FPN.OUT_CHANNELS": keys.out(f"backbone.fpn_output{levels[0]}.weight"),
            "MODEL.FPN.NORM": keys.norm(f"backbone.fpn_output{levels[0]}"),
        }
    return settings | _deformable(keys, root) | _inserts(keys, root, counts)


def _resnet(keys: Keys, root: str, counts: tuple[int, ...]) -> Settings:
    bottleneck = keys.has(f"{root}res2.0.conv3.")
    depth = (_BOTTLENECK if bottleneck else _BASIC).get(counts)
    if depth is None:
        raise UsageError(
            f"a ResNet with {', '.join(map(str, counts))} blocks in res2 to res5: truncated, or of "
            "a depth other than 18, 34, 50, 101, 152"
        )
    last = "conv3" if bottleneck else "conv2"
    deep = keys.has(f"{root}stem.conv3.")
    settings = {
        "MODEL.BACKBONE.NAME": "build_context_resnet_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.STEM_TYPE": "v1c" if deep else "basic",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": keys.out(f"{root}stem.conv{3 if deep else 1}.weight"),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": keys.out(f"{root}res2.0.{last}.weight"),
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.NORM": keys.norm(f"{root}stem.conv1") or "",
        "MODEL.RESNETS.OUT_FEATURES": ["res4", "res5"],
    }
    if bottleneck:
        width = keys.out(f"{root}res2.0.conv2.weight")
        groups = width // keys.into(f"{root}res2.0.conv2.weight")
        settings |= {
            "MODEL.RESNETS.NUM_GROUPS": groups,
            "MODEL.RESNETS.WIDTH_PER_GROUP": width // groups,
        }
    return settings


def _deformable(keys: Keys, root: str) -> Settings:
    on = [keys.has(f"{root}res{s}.0.conv2_offset.") for s in (2, 3, 4, 5)]
    if not any(on):
        return {}
    channels = keys.out(f"{root}res{on.index(True) + 2}.0.conv2_offset.weight")
    # 2 or, modulated, 3 numbers for each of the 9 taps. 54 is taken for 2 modulated groups.
    modulated = channels % 27 == 0
    return {
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": on,
        "MODEL.RESNETS.DEFORM_MODULATED": modulated,
        "MODEL.RESNETS.DEFORM_NUM_GROUPS": channels // (27 if modulated else 18),
    }


def _inserts(keys: Keys, root: str, counts: tuple[int, ...]) -> Settings:
    placed = {
        f"RES{s}": [b for b in range(n) if keys.has(f"{root}res{s}.{b}.context.")]
        for s, n in zip((2, 3, 4, 5), counts, strict=True)
    }
    first = next(((s, blocks[0]) for s, blocks in placed.items() if blocks), None)
    if first is None:
        return {}
    settings: Settings = {f"MODEL.RESNETS.CONTEXT_STAGES.{s}": b for s, b in placed.items() if b}
    block = f"{root}{first[0].lower()}.{first[1]}.context"
    arguments = block_settings(keys, block)
    if arguments.get("PRESET") == "paper-det":
        settings["MODEL.RESNETS.CONTEXT_POSITION"] = "after_add"
    return settings | {f"MODEL.RESNETS.CONTEXT.{k}": v for k, v in arguments.items()}

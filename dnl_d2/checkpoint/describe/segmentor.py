"""Telling the segmentation head of some weights."""

from dnl_d2.checkpoint.describe.block import block_settings
from dnl_d2.checkpoint.describe.parameters import Keys, Settings


def head_settings(keys: Keys) -> Settings:
    """MODEL.SEM_SEG_HEAD of weights."""
    head = "sem_seg_head"
    settings: Settings = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": keys.out(f"{head}.predictor.weight"),
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": keys.into(f"{head}.predictor.weight"),
    }
    if keys.has(f"{head}.fusion."):
        settings |= {
            "MODEL.SEM_SEG_HEAD.NAME": "AsymmetricHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res4", "res5"],
            "MODEL.SEM_SEG_HEAD.NORM": keys.norm(f"{head}.bottleneck.1"),
            "MODEL.SEM_SEG_HEAD.ASYMMETRIC.PROJECT_CHANNELS": keys.out(
                f"{head}.context.attend.value.weight"
            ),
        }
    else:
        settings |= {
            "MODEL.SEM_SEG_HEAD.NAME": "ContextHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
            "MODEL.SEM_SEG_HEAD.NORM": keys.norm(f"{head}.convs.0"),
            "MODEL.SEM_SEG_HEAD.NUM_CONVS": keys.count(f"{head}.convs."),
            "MODEL.SEM_SEG_HEAD.CONCAT_INPUT": keys.has(f"{head}.fuse."),
        }
    if keys.has(f"{head}.context_block."):
        block = block_settings(keys, f"{head}.context_block")
        settings |= {f"MODEL.SEM_SEG_HEAD.CONTEXT.{k}": v for k, v in block.items()}
    auxiliary = f"{head}.auxiliary"
    if keys.has(f"{auxiliary}."):
        settings |= {
            "MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT": 0.4,
            "MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": keys.into(f"{auxiliary}.predictor.weight"),
            "MODEL.SEM_SEG_HEAD.AUXILIARY.NUM_CONVS": keys.count(f"{auxiliary}.convs."),
            "MODEL.SEM_SEG_HEAD.AUXILIARY.CONCAT_INPUT": keys.has(f"{auxiliary}.fuse."),
        }
    return settings

"""Context blocks and the attention functions under them. Needs torch only."""

from dnl_d2.layers.asymmetric import AsymmetricFusionNonLocalBlock, AsymmetricPyramidNonLocalBlock
from dnl_d2.layers.context_block import (
    CONTEXT_BLOCKS,
    ContextBlock,
    block_arguments,
    build_context_block,
)
from dnl_d2.layers.disentangled import DisentangledNonLocalBlock, DisentangledVariant
from dnl_d2.layers.functional import pairwise_attention, pairwise_weights, unary_attention
from dnl_d2.layers.global_context import GlobalContextBlock, SimplifiedNonLocalBlock
from dnl_d2.layers.non_local import NonLocalBlock
from dnl_d2.layers.norms import FixedBatchNorm2d, get_norm
from dnl_d2.layers.pyramid import pyramid_pool

__all__ = [
    "CONTEXT_BLOCKS",
    "AsymmetricFusionNonLocalBlock",
    "AsymmetricPyramidNonLocalBlock",
    "ContextBlock",
    "DisentangledNonLocalBlock",
    "DisentangledVariant",
    "FixedBatchNorm2d",
    "GlobalContextBlock",
    "NonLocalBlock",
    "SimplifiedNonLocalBlock",
    "block_arguments",
    "build_context_block",
    "get_norm",
    "pairwise_attention",
    "pairwise_weights",
    "pyramid_pool",
    "unary_attention",
]

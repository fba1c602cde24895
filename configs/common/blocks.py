"""Every context block as a LazyConfig names it; any argument of the block may be added."""

from omegaconf import DictConfig

nl = dict(name="nl", mode="embedded_gaussian", norm="SyncBN")
snl = dict(name="snl")
gc = dict(name="gc", ratio=0.25)
dnl = dict(name="dnl", preset="mmseg", temperature=0.05, norm="SyncBN")
apnb = dict(name="apnb", pool_scales=(1, 3, 6, 8), norm="SyncBN")
afnb = dict(name="afnb", pool_scales=(1, 3, 6, 8), norm="SyncBN")


def gc_in_c3_to_c5(model: DictConfig, ratio: float) -> None:
    """A GC block in every residual block of the last three stages of a detector, as in GCNet."""
    model.backbone.bottom_up.context = dict(name="gc", ratio=ratio)
    model.backbone.bottom_up.inserts = dict(res3="all", res4="all", res5="all")

"""Every context block as a LazyConfig names it; any argument of the block may be added."""

nl = dict(name="nl", mode="embedded_gaussian", norm="SyncBN")
snl = dict(name="snl")
gc = dict(name="gc", ratio=0.25)
dnl = dict(name="dnl", preset="mmseg", temperature=0.05, norm="SyncBN")
apnb = dict(name="apnb", pool_scales=(1, 3, 6, 8), norm="SyncBN")
afnb = dict(name="afnb", pool_scales=(1, 3, 6, 8), norm="SyncBN")

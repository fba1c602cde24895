"""Telling the context block of some weights, and its arguments."""

from dnl_d2.checkpoint.describe.parameters import Keys, Settings


def block_settings(keys: Keys, block: str) -> Settings:
    """NAME and arguments of the context block with these parameters."""
    transforms = [t for t in ("add", "mul") if keys.has(f"{block}.channel_{t}.")]
    if transforms:
        first = f"{block}.channel_{transforms[0]}.0.weight"
        return {
            "NAME": "gc",
            "RATIO": keys.out(first) / keys.into(first),
            "POOLING": "att" if keys.has(f"{block}.unary.") else "avg",
            "FUSION": transforms,
        }
    if not keys.has(f"{block}.query.") and keys.has(f"{block}.unary."):
        return {"NAME": "snl", "NORM": keys.norm(f"{block}.value")}
    projected = keys.has(f"{block}.project.")
    norm = keys.norm(f"{block}.project" if projected else block)
    if keys.has(f"{block}.gamma"):
        return {
            "NAME": "dnl",
            "PRESET": "paper-seg" if block.startswith("sem_seg_head") else "paper-det",
            "REDUCTION": _reduction(keys, f"{block}.query.weight"),
            "NORM": norm,
            "PROJECT": projected,
            "UNARY": keys.has(f"{block}.unary."),
        }
    if keys.has(f"{block}.unary."):
        reduction = _reduction(keys, f"{block}.query.weight")
        return {"NAME": "dnl", "PRESET": "mmseg", "REDUCTION": reduction, "NORM": norm}
    reduction = _reduction(keys, f"{block}.value.weight")
    settings = {"NAME": "nl", "REDUCTION": reduction, "NORM": norm}
    if not keys.has(f"{block}.query."):
        settings["MODE"] = "gaussian"
    elif keys.has(f"{block}.concat."):
        settings["MODE"] = "concatenation"
    return settings


def _reduction(keys: Keys, projection: str) -> int:
    return keys.into(projection) // keys.out(projection)

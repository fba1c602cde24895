"""Fitting a schedule to another batch size: the linear scaling rule of arXiv 1706.02677.

With k times the images per iteration, learning rates are multiplied by k and iterations divided by
k, so that a run sees the same number of images, warms up, saves and evaluates after as many of
them. Afterwards the batch size counts as the reference: a scaled config does not scale again.
"""

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from dnl_d2.errors import UsageError

_RATES = ("SOLVER.BASE_LR", "SOLVER.MIN_LR", "SOLVER.BASE_LR_END")
_ITERATIONS = (
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)
# A LazyConfig's lr_multiplier is a function of progress: nothing in it counts iterations.
_LAZY_RATES = ("optimizer.lr",)
_LAZY_ITERATIONS = ("train.max_iter", "train.checkpointer.period", "train.eval_period")


class SameBatchSize:
    """Goes into checkpoints, so that a scaled run is resumed with the batches it was scaled for.

    With others, the iterations done and those to come would not count the same number of images.

    Args:
        size: images per iteration.
        scaled: whether the config has a reference batch size.
    """

    def __init__(self, size: int, *, scaled: bool):
        self.size = size
        self.scaled = scaled

    def state_dict(self) -> dict[str, int]:
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises :class:`UsageError` if the schedule is scaled and the size is another."""
        if self.scaled and state["size"] != self.size:
            raise UsageError(
                f"the run was trained in batches of {state['size']}, its schedule is now scaled to "
                f"{self.size}: resume with {state['size']} images per batch"
            )


def scale_yaml(cfg: CfgNode) -> tuple[CfgNode, str]:
    """The config for its IMS_PER_BATCH instead of its REFERENCE_BATCH_SIZE.

    Returns:
        The config itself if there is nothing to do, otherwise a changed copy; and a line that says
        what was changed, empty for nothing.

    Raises:
        UsageError: a negative reference, or Detectron2's REFERENCE_WORLD_SIZE is set as well.
    """
    solver = cfg.SOLVER
    factor = _factor(
        "SOLVER.IMS_PER_BATCH",
        solver.IMS_PER_BATCH,
        "SOLVER.REFERENCE_BATCH_SIZE",
        solver.REFERENCE_BATCH_SIZE,
    )
    if solver.REFERENCE_BATCH_SIZE and solver.REFERENCE_WORLD_SIZE:
        raise UsageError(
            "SOLVER.REFERENCE_BATCH_SIZE and SOLVER.REFERENCE_WORLD_SIZE both scale the schedule: "
            "set one of them to 0"
        )
    if factor == 1:
        return cfg, ""
    options, changes = [], []
    for key in _RATES + _ITERATIONS:
        node, name = key.split(".")
        old = cfg[node][name]
        if name == "STEPS" and solver.LR_SCHEDULER_NAME == "PolyLR":
            continue  # which reads none
        new = _scaled(old, factor, rate=key in _RATES)
        if new != old:
            options += [key, new]
            changes.append(f"{key} {_text(old)} -> {_text(new)}")
    note = _note("SOLVER.IMS_PER_BATCH", solver.IMS_PER_BATCH, solver.REFERENCE_BATCH_SIZE, changes)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([*options, "SOLVER.REFERENCE_BATCH_SIZE", solver.IMS_PER_BATCH])
    return cfg, note


def scale_lazy(cfg: DictConfig) -> str:
    """LazyConfig twin of :func:`scale_yaml` that changes ``cfg`` and returns the line."""
    batch = "dataloader.train.total_batch_size"
    size, reference = OmegaConf.select(cfg, batch), cfg.train.reference_batch_size
    factor = _factor(batch, size, "train.reference_batch_size", reference)
    if factor == 1:
        return ""
    changes = []
    for key in _LAZY_RATES + _LAZY_ITERATIONS:
        old = OmegaConf.select(cfg, key)
        if old is None:
            raise UsageError(f"train.reference_batch_size: there is no {key} to scale")
        new = _scaled(old, factor, rate=key in _LAZY_RATES)
        if new != old:
            OmegaConf.update(cfg, key, new)
            changes.append(f"{key} {_text(old)} -> {_text(new)}")
    cfg.train.reference_batch_size = size
    return _note(batch, size, reference, changes)


def _factor(size_key: str, size: int, reference_key: str, reference: int) -> float:
    if reference < 0 or (reference and not size):
        raise UsageError(f"{reference_key}={reference}, {size_key}={size}: use positive numbers")
    return size / reference if reference else 1.0


def _scaled(value, factor: float, *, rate: bool):
    if isinstance(value, tuple | list):
        return tuple(_scaled(v, factor, rate=rate) for v in value)
    if rate:
        return value * factor
    return max(round(value / factor), 1) if value > 0 else value


def _text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _note(key: str, size: int, reference: int, changes: list[str]) -> str:
    return f"scaled from batches of {reference} to {key} {size}: {', '.join(changes)}"

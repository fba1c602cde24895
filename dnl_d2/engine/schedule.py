"""The poly learning-rate schedule with a minimum."""

from fvcore.common.param_scheduler import ParamScheduler

from dnl_d2.errors import UsageError


class PolyParamScheduler(ParamScheduler):
    """Multiplier (1 - end) (1 - progress) ** power + end of the base learning rate.

    Iteration k of N has progress k / N, as in mmcv 1.x, with which the published models were
    trained. (mmengine has k / (N - 1): it reaches the end in the last iteration.)

    Args:
        power: 0.9 in every published recipe.
        end_value: the last multiplier, minimum learning rate / base learning rate (1e-4 / 0.01).
    """

    def __init__(self, *, power: float = 0.9, end_value: float = 0.01):
        if not 0.0 <= end_value <= 1.0:
            raise UsageError(
                f"poly schedule: minimum / base learning rate must be in [0, 1], got {end_value}"
            )
        self._power = power
        self._end_value = end_value

    def __call__(self, where: float) -> float:
        return (1.0 - self._end_value) * max(1.0 - where, 0.0) ** self._power + self._end_value

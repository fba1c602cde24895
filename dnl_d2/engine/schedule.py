"""Learning-rate schedules of the recipes, in iterations as YAML counts them."""

from collections.abc import Sequence

from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler, ParamScheduler

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


def multi_step(
    *, milestones: Sequence[int], max_iter: int, gamma: float = 0.1
) -> MultiStepParamScheduler:
    """A multiplier that falls to ``gamma`` of itself at each milestone that the run gets to.

    Args:
        milestones: iterations, in ascending order.
        max_iter: iterations of the run.
        gamma: the factor.
    """
    reached = [step for step in milestones if step <= max_iter]
    values = [gamma**number for number in range(len(reached) + 1)]
    return MultiStepParamScheduler(values, milestones=reached, num_updates=max_iter)


def warmed_up(
    scheduler: ParamScheduler, *, factor: float, iterations: int, max_iter: int
) -> ParamScheduler:
    """A schedule that begins at ``factor`` of its value and grows to all of it linearly.

    Args:
        scheduler: the schedule.
        factor: 0 to 1.
        iterations: length of the warm-up; 0 for none.
        max_iter: iterations of the run.
    """
    if iterations <= 0:
        return scheduler
    return WarmupParamScheduler(scheduler, factor, min(iterations / max_iter, 1.0), "linear")


def never_reached(
    max_iter: tuple[str, int],
    warmup: tuple[str, int | None],
    steps: tuple[str, Sequence[int] | None],
) -> list[str]:
    """What of a schedule lies behind the end of the run, a line for each.

    Args:
        max_iter, warmup, steps: config key and value of the iterations of the run, of its warm-up
            and of its milestones; None for those that a schedule does not have.
    """
    length_key, length = max_iter
    lines = []
    if warmup[1] and warmup[1] >= length:
        lines.append(
            f"{warmup[0]} {warmup[1]}: the warm-up takes all of {length_key} {length} iterations, "
            "and the learning rate is never what the config says"
        )
    late = [step for step in steps[1] or () if step >= length]
    if late:
        lines.append(
            f"{steps[0]} {', '.join(map(str, late))}: not before the end, {length_key} {length}"
        )
    return lines

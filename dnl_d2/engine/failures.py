"""Why a training run ended, in a line."""

import contextlib
from collections.abc import Iterator

from detectron2.utils import comm

from dnl_d2.engine.processes import is_loss_of_a_process
from dnl_d2.errors import UsageError

# PyTorch
_ONE_VALUE = "Expected more than 1 value per channel"
_UNUSED = "Expected to have finished reduction in the prior iteration"


@contextlib.contextmanager
def explaining_failures(unused_key: str = "find_unused_parameters") -> Iterator[None]:
    """Turns into a UsageError what a training run may end with.

    That is a diverged loss, batch norm of one value, a parameter without a gradient in one of
    several processes, or a lost process.

    It names what failed first: hooks that end a run may fail after it, for the same reason. What
    was raised ``from`` it says the same in other words, and those are taken.

    Args:
        unused_key: the config key of DistributedDataParallel's find_unused_parameters.
    """
    try:
        yield
    except Exception as error:
        chain = [*_chain(error)]
        if _ONE_VALUE in str(chain[-1]):
            raise UsageError(
                "batch norm has a single value per channel to learn from: train with two images or "
                "more per process, larger crops, or freeze the norm"
            ) from error
        if _UNUSED in str(chain[-1]):
            raise UsageError(
                "parameters of the model had no part in the loss of an iteration, for whose "
                f"gradients the processes wait: set {unused_key} to True, which "
                "looks for such parameters in each iteration"
            ) from error
        if is_loss_of_a_process(chain[-1]):
            raise UsageError(
                f"process {comm.get_rank()} of {comm.get_world_size()} lost another one "
                f"({' '.join(str(chain[-1]).split())[:150]}): that says why, or what started it"
            ) from error
        told = [e for e in chain if isinstance(e, UsageError | FloatingPointError)]
        known = [e for e in told if e not in [other.__cause__ for other in told]]
        if not known:
            raise
        if isinstance(known[-1], UsageError):
            raise known[-1] from None
        what = " ".join(str(known[-1]).partition("!\n")[0].split())  # behind it all losses follow
        what = what.rstrip(".;, ")
        raise UsageError(
            f"training diverged: {what}; lower the learning rate, or look at the labels and the "
            "precision. The last checkpoint is from before"
        ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what was being handled when it was raised, and so on."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__context__

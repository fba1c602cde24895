"""Where clips lie in a video, in seconds: frame rates may differ, or vary."""

from typing import NamedTuple

import numpy as np


class ClipShape(NamedTuple):
    """How frames of a clip lie in time.

    Attributes:
        frames: T.
        stride: from one frame to the next, counted in frames of a video of ``rate``.
        rate: frames per second that the stride is counted in, whatever the video's own rate is.
    """

    frames: int
    stride: float
    rate: float

    @property
    def span(self) -> float:
        """Seconds that a clip stands for."""
        return self.frames * self.stride / self.rate

    def times(self, start: float, duration: float) -> list[float]:
        """When the frames are shown; behind its end, a short video begins again."""
        times = start + np.arange(self.frames) * (self.stride / self.rate)
        return np.mod(times, duration).tolist()

    def random_start(self, duration: float) -> float:
        """Seconds; 0 in a video that is shorter than the clip."""
        return float(np.random.uniform(0.0, max(duration - self.span, 0.0)))

    def uniform_starts(self, duration: float, count: int) -> list[float]:
        """From the first clip to the last at equal distances; one alone lies in the middle."""
        last = max(duration - self.span, 0.0)
        return [last / 2] if count == 1 else np.linspace(0.0, last, count).tolist()

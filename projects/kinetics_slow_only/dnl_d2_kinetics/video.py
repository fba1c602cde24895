"""Frames of a video at given times, by PyAV: no more is decoded than lies between them."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from dnl_d2.errors import UsageError

# Seconds. Containers round the times of frames; where the next frame that is wanted is farther away
# than the gap, looking for it from a key frame is cheaper than decoding all in between; a video
# that ends by more than the slack before its stated end has lost frames.
_ROUNDING, _GAP, _SLACK = 1e-3, 10.0, 1.0


class BrokenVideoError(UsageError):
    """A file that holds no frames, or not those that it says."""


@contextlib.contextmanager
def open_video(path: str) -> Iterator["Video"]:
    """Opens a video.

    Raises:
        BrokenVideoError: the file is missing, empty, damaged, or holds no pictures; also for what
            is found while it is open.
        UsageError: PyAV is not installed.
    """
    av = pyav()
    if not os.path.isfile(path):
        raise BrokenVideoError(f"video {path}: no such file")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
                raise BrokenVideoError(f"video {path}: no video stream in it (streams: {kinds})")
            yield Video(path, container)
    except (av.FFmpegError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise BrokenVideoError(
            f"video {path}: cannot be decoded ({reason}): copy it again or take it off the list"
        ) from error


class Video:
    """An open video; see :func:`open_video`.

    Attributes:
        duration: seconds from the first frame to the end.
        size: (height, width) of the frames.
    """

    def __init__(self, path: str, container: Any):
        self.path = path
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # each process of a loader has its own video
        self.size = self._stream.codec_context.height, self._stream.codec_context.width
        self._start = self._seconds(self._stream.start_time or 0)
        self.duration = self._duration()
        if not self.duration > 0 or not all(self.size):
            raise BrokenVideoError(f"video {path}: no frame in it")

    def frames(self, times: Sequence[float], *, short_side: int) -> np.ndarray:
        """The pictures that are shown at some times.

        Args:
            times: seconds from the first frame, in any order.
            short_side: length in pixels that the shorter side is resized to; the other side keeps
                the proportions.

        Returns:
            uint8 ``(len(times), height, width, 3)``, RGB.

        Raises:
            BrokenVideoError: frames are missing or damaged.
        """
        wanted = sorted(set(times))
        gaps = np.flatnonzero(np.diff(wanted) > _GAP) + 1
        height, width = _resized(self.size, short_side)
        pictures: dict[float, np.ndarray] = {}
        for part in np.split(np.array(wanted), gaps):
            shown, picture = None, np.empty(0)
            for time, frame in self._shown(part.tolist()):
                if frame is not shown:
                    shown, picture = frame, _pixels(frame, height, width)
                pictures[time] = picture
        return np.stack([pictures[time] for time in times])

    def _shown(self, times: Sequence[float]) -> Iterator[tuple[float, Any]]:
        """Each time, in ascending order, and the last frame that begins before or then."""
        left = iter(times)
        time, shown, ends = next(left), None, 0.0
        for frame in self._decoded_from(time):
            begins = self._begins(frame)
            while shown is not None and begins > time + _ROUNDING:
                yield time, shown
                following = next(left, None)
                if following is None:
                    return
                time = following
            shown, ends = frame, begins + self._seconds(frame.duration or 0)
        for later in chain([time], left):
            if shown is None or later > ends + _SLACK:
                raise BrokenVideoError(
                    f"video {self.path}: damaged: its frames end at {ends:.1f} s of "
                    f"{self.duration:.1f} s"
                )
            yield later, shown

    def _decoded_from(self, time: float) -> Iterator[Any]:
        """Frames in their order, from the one shown at a time, or an earlier one."""
        self._seek(time)
        decoded = self._decode()
        first = next(decoded, None)
        if first is None or self._begins(first) > time + _ROUNDING:  # it has landed too late
            self._seek(0.0)
            yield from self._decode()
        else:
            yield first
            yield from decoded

    def _decode(self) -> Iterator[Any]:
        return (f for f in self._container.decode(self._stream) if f.pts is not None)

    def _seek(self, time: float) -> None:
        offset = int((time + self._start) / self._stream.time_base)
        self._container.seek(offset, stream=self._stream)

    def _begins(self, frame: Any) -> float:
        return self._seconds(frame.pts) - self._start

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._stream.time_base)

    def _duration(self) -> float:
        """As the stream says; else as its packets do, which are read but not decoded."""
        if self._stream.duration:
            return self._seconds(self._stream.duration)
        end = 0.0
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                end = max(end, self._seconds(packet.pts + (packet.duration or 1)))
        return end - self._start


def _resized(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    scale = short_side / min(size)
    height, width = (max(round(side * scale), short_side) for side in size)
    return height, width


def _pixels(frame: Any, height: int, width: int) -> np.ndarray:
    return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")


def pyav() -> Any:
    """PyAV, or the line that says how to get it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UsageError(
            "videos are read by PyAV, which is not installed: pip install av"
        ) from error
    return av

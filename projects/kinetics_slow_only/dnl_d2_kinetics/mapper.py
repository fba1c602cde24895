"""From a record of a video to clips, for Detectron2's loaders."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.sampling import ClipShape
from dnl_d2_kinetics.video import BrokenVideoError, open_video

_log = logging.getLogger("dnl_d2.kinetics")  # below the library's, which a run shows and keeps


class _ClipMapper:
    """What both mappers share: a video that cannot be read is named, and the run goes on.

    If this happens again and again the folder is wrong, or the disk: then it ends.
    """

    instead: str  # what happens then, for the warning
    limit = 10  # of broken videos in a row; of the first ones that a process reads, 3

    def __init__(self, shape: ClipShape, crop_size: int, short_side: int):
        if shape.frames < 1 or min(shape.stride, shape.rate) <= 0:
            raise UsageError(
                f"mapper: num_frames {shape.frames}, stride {shape.stride} and rate {shape.rate} "
                "must be positive"
            )
        if not 1 <= crop_size <= short_side:
            raise UsageError(
                f"mapper: crop_size {crop_size} must be positive and no more than short_side "
                f"{short_side}"
            )
        self.shape = shape
        self.crop_size = crop_size
        self._broken, self._worked = 0, False

    def _try(self, read: Callable[[dict], Tensor], record: dict) -> Tensor | None:
        try:
            clips = read(record)
        except BrokenVideoError as error:
            self._broken += 1
            if self._broken >= (self.limit if self._worked else 3):
                raise UsageError(
                    f"{self._broken} videos in a row are broken; the last: {error}"
                ) from error
            _log.warning("%s; %s", error, self.instead)
            return None
        self._broken, self._worked = 0, True
        return clips

    def _clip(self, frames: np.ndarray, top: int, left: int) -> Tensor:
        """``(T, H, W, 3)`` -> ``(3, T, crop_size, crop_size)``."""
        size = self.crop_size
        crop = frames[:, top : top + size, left : left + size]
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(3, 0, 1, 2)))


class TrainClipMapper(_ClipMapper):
    """One clip at a random time, resized, cropped and mirrored at random.

    A broken video is left out: Detectron2's loader then takes another at random.

    Args:
        num_frames: T.
        stride: see :class:`~dnl_d2_kinetics.sampling.ClipShape`.
        rate: see there.
        short_side: (least, most) pixels of the shorter side.
        crop_size: pixels of either side of the crop.
        flip: whether every second clip is mirrored; left and right must not tell classes then.
    """

    instead = "another one is taken"

    def __init__(
        self,
        *,
        num_frames: int = 8,
        stride: float = 8,
        rate: float = 30.0,
        short_side: Sequence[int] = (256, 320),
        crop_size: int = 224,
        flip: bool = True,
    ):
        if len(short_side) != 2 or short_side[0] > short_side[1]:
            raise UsageError(f"mapper: short_side {list(short_side)} must be (least, most) pixels")
        super().__init__(ClipShape(num_frames, stride, rate), crop_size, short_side[0])
        self.short_side = tuple(short_side)
        self.flip = flip

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The record with ``"clips"``, uint8 ``(1, 3, T, size, size)``; None if it is broken."""
        clips = self._try(self._read, record)
        return None if clips is None else {**record, "clips": clips}

    def _read(self, record: dict) -> Tensor:
        least, most = self.short_side
        with open_video(record["file_name"]) as video:
            times = self.shape.times(self.shape.random_start(video.duration), video.duration)
            frames = video.frames(times, short_side=int(np.random.randint(least, most + 1)))
        room = [side - self.crop_size for side in frames.shape[1:3]]
        clip = self._clip(frames, *(int(np.random.randint(0, free + 1)) for free in room))
        return (clip.flip(-1) if self.flip and np.random.rand() < 0.5 else clip)[None]


class TestClipMapper(_ClipMapper):
    """Views of a video: clips at equal distances, and crops of each along the longer side.

    A broken video has no views. The model then has no favourite class, and the video counts as not
    recognised: figures stay comparable, and are never better for it.

    Args:
        num_frames: T.
        stride: see :class:`~dnl_d2_kinetics.sampling.ClipShape`.
        rate: see there.
        short_side: pixels of the shorter side.
        crop_size: pixels of either side of a crop.
        num_clips: clips of a video.
        num_crops: crops of a clip, from one end of the longer side to the other; one alone lies in
            the middle.
    """

    __test__ = False  # no class of tests, as pytest would think by its name
    instead = "it counts as not recognised"

    def __init__(
        self,
        *,
        num_frames: int = 8,
        stride: float = 8,
        rate: float = 30.0,
        short_side: int = 256,
        crop_size: int = 256,
        num_clips: int = 10,
        num_crops: int = 3,
    ):
        super().__init__(ClipShape(num_frames, stride, rate), crop_size, short_side)
        if min(num_clips, num_crops) < 1:
            raise UsageError(
                f"mapper: num_clips {num_clips} and num_crops {num_crops} must be 1 or more"
            )
        self.short_side = short_side
        self.num_clips, self.num_crops = num_clips, num_crops

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with ``"clips"``, uint8 ``(V, 3, T, size, size)``; V is 0 if it is broken."""
        clips = self._try(self._read, record)
        if clips is None:
            size = (3, self.shape.frames, self.crop_size, self.crop_size)
            clips = torch.zeros(0, *size, dtype=torch.uint8)
        return {**record, "clips": clips}

    def _read(self, record: dict) -> Tensor:
        with open_video(record["file_name"]) as video:
            starts = self.shape.uniform_starts(video.duration, self.num_clips)
            times = [t for start in starts for t in self.shape.times(start, video.duration)]
            frames = video.frames(times, short_side=self.short_side)
        views = []
        for clip in np.split(frames, self.num_clips):
            views += [self._clip(clip, *corner) for corner in self._corners(clip.shape[1:3])]
        return torch.stack(views)

    def _corners(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """(top, left) of the crops of a frame (height, width)."""
        down, across = (side - self.crop_size for side in size)
        shares = [0.5] if self.num_crops == 1 else np.linspace(0, 1, self.num_crops).tolist()
        if down > across:
            return [(round(share * down), across // 2) for share in shares]
        return [(down // 2, round(share * across)) for share in shares]

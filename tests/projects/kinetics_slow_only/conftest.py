from fractions import Fraction

import av
import numpy as np
import pytest


@pytest.fixture
def film(tmp_path):
    """Returns ``film(name, levels, ...) -> path``: a video of plain grey frames."""

    def write(
        name, levels, *, rate=10, times=None, size=(32, 48), codec="mjpeg", gop=12, options=None
    ):
        path = str(tmp_path / name)
        with av.open(path, "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.time_base = Fraction(1, 1000)
            for number, level in enumerate(levels):
                frame = av.VideoFrame.from_ndarray(
                    np.full((*size, 3), level, np.uint8), format="rgb24"
                )
                frame.time_base = Fraction(1, 1000)
                frame.pts = round(1000 * (number / rate if times is None else times[number]))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def sound(tmp_path):
    """A file that holds sound alone."""
    path = str(tmp_path / "sound.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path

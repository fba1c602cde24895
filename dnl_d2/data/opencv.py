"""OpenCV, which the environment chooses and which models run without."""

from dnl_d2.errors import UsageError

try:
    import cv2
except ImportError:  # require_opencv reports it to what needs it
    cv2 = None  # type: ignore[assignment]


def require_opencv() -> None:
    """Raises a :class:`UsageError` where OpenCV is missing."""
    if cv2 is None:
        raise UsageError(
            "resizing and colour distortion need OpenCV (module cv2), which cannot be imported: "
            "pip install opencv-python-headless"
        )

"""What the key maps share."""

from dnl_d2.checkpoint import NORM, InputFormat, Rule

# Of PySlowFast and PyTorchVideo: 0.45 and 0.225 of the brightest.
FACEBOOK_RGB = InputFormat("RGB", (114.75, 114.75, 114.75), (57.375, 57.375, 57.375))


def conv_norm(public_conv: str, public_norm: str, ours: str) -> list[Rule]:
    """A convolution without bias, and its norm."""
    return [
        Rule(f"{public_conv}.weight", f"{ours}.weight"),
        Rule(f"{public_norm}.{NORM}", f"{ours}.norm.{NORM}"),
    ]

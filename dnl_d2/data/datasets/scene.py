"""The drawing behind the generated dataset: one scene from one random generator."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

BACKGROUND, TEXTURE_A, TEXTURE_B, PAIRED, SINGLE, BEACON = range(6)

_UNIT = 192  # the radii below are for a canvas whose shorter side has this many pixels
_SHAPE_RADII = (15.0, 17.0)
_TEXTURE_RADII = (20.0, 28.0)
_BEACON_RADIUS = 11.0
_DOT = 0.45  # of the radius of a dotted disc
_DARK, _LIGHT = 20.0, 235.0
_MARGIN = 3.0  # least number of pixels between two things, and to the border
_HUE_JITTER = 0.01  # of the colour wheel, between the two twins


@dataclass(frozen=True)
class Disc:
    """The part of the canvas one thing has to itself."""

    y: float
    x: float
    radius: float

    def gap(self, other: "Disc") -> float:
        """Returns the pixels between two discs, negative where they overlap."""
        return float(np.hypot(self.y - other.y, self.x - other.x)) - self.radius - other.radius


@dataclass(frozen=True)
class Layout:
    """Where everything is: drawn before, and without knowing, what any of it means."""

    beacon: Disc
    textures: tuple[Disc, ...]
    couples: tuple[tuple[Disc, Disc], ...]


def draw_layout(
    rng: np.random.Generator, size: tuple[int, int], *, couples: int, textures: int, reach: float
) -> Layout:
    """Places a beacon, texture areas far from it, and couples of shapes far from each other.

    Args:
        rng: source of all randomness.
        size: (height, width) of the canvas.
        couples: number of couples of shapes.
        textures: number of texture areas.
        reach: pixels to keep between the beacon and every texture area, and between the two shapes
            of a couple; at most a third of the shorter side, less where the canvas is too narrow.

    Returns:
        A layout in which nothing overlaps.
    """
    scale = min(1.5, min(size) / _UNIT)
    reach = min(reach, 0.32 * min(size))
    while True:
        for _ in range(20):
            layout = _try_layout(_Canvas(rng, size, scale), couples, textures, reach)
            if layout is not None:
                return layout
        reach, scale = 0.9 * reach, 0.97 * scale


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    beacon_kind: int,
    twins: Sequence[bool],
    textures: int = 2,
    reach: float = 60.0,
    noise: float = 12.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        rng: source of all randomness.
        size: (height, width).
        beacon_kind: 0 or 1, the fact that turns every texture area into A or B.
        twins: for each couple, a plain and a dotted disc, whether they have one colour.
        textures: number of texture areas.
        reach: see :func:`draw_layout`.
        noise: standard deviation of the pixel noise, in grey values.

    Returns:
        image (H, W, 3) uint8 RGB and label (H, W) uint8.
    """
    layout = draw_layout(rng, size, couples=len(twins), textures=textures, reach=reach)
    image = _background(rng, size)
    label = np.full(size, BACKGROUND, np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)

    for disc in layout.textures:
        inside = np.hypot(rows - disc.y, columns - disc.x) <= disc.radius
        image[inside] += _stripes(rng, rows[inside], columns[inside])[:, None]
        label[inside] = TEXTURE_B if beacon_kind else TEXTURE_A

    hues = _distinct_hues(rng, 2 * len(twins)).reshape(-1, 2)
    for couple, same, (hue, other) in zip(layout.couples, twins, hues, strict=True):
        plain, dotted = (np.hypot(rows - disc.y, columns - disc.x) / disc.radius for disc in couple)
        image[plain <= 1] = _colour(rng, hue)
        image[dotted <= 1] = _colour(rng, hue if same else other)
        image[dotted <= _DOT] = _DARK
        label[(plain <= 1) | (dotted <= 1)] = PAIRED if same else SINGLE

    beacon = layout.beacon
    distance = np.hypot(rows - beacon.y, columns - beacon.x)
    inside = distance <= beacon.radius
    core = distance[inside] <= beacon.radius / np.sqrt(2)  # half of the area
    image[inside] = np.where(core == bool(beacon_kind), _LIGHT, _DARK)[:, None]
    label[inside] = BEACON

    image += rng.normal(0.0, noise, image.shape)
    return image.round().clip(0, 255).astype(np.uint8), label


@dataclass
class _Canvas:
    rng: np.random.Generator
    size: tuple[int, int]
    scale: float
    placed: list[Disc] = field(default_factory=list)

    def place(self, radii: tuple[float, float], far_from: Disc | None, reach: float) -> Disc | None:
        """Finds a free place by trial."""
        radius = self.scale * self.rng.uniform(*radii)
        edge = radius + _MARGIN
        for _ in range(30):
            disc = Disc(*(self.rng.uniform(edge, side - edge) for side in self.size), radius)
            free = all(disc.gap(other) >= _MARGIN for other in self.placed)
            if free and (far_from is None or disc.gap(far_from) >= reach):
                self.placed.append(disc)
                return disc
        return None


def _try_layout(canvas: _Canvas, couples: int, textures: int, reach: float) -> Layout | None:
    beacon = canvas.place((_BEACON_RADIUS, _BEACON_RADIUS), None, reach)
    areas = [canvas.place(_TEXTURE_RADII, beacon, reach) for _ in range(textures)]
    pairs = []
    for _ in range(couples):
        first = canvas.place(_SHAPE_RADII, None, reach)
        pairs.append((first, canvas.place(_SHAPE_RADII, first, reach)))
    if beacon is None or None in areas or any(None in pair for pair in pairs):
        return None
    return Layout(beacon, tuple(areas), tuple(pairs))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Soft grey clouds, (H, W, 3) float32."""
    clouds = Image.fromarray(rng.uniform(75, 155, (5, 5)).astype(np.float32))
    grey = np.asarray(clouds.resize(size[::-1], Image.BICUBIC))
    return grey[..., None] + rng.uniform(-10, 10, 3).astype(np.float32)


def _stripes(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Stripes 8 pixels apart, in a random direction and phase."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    across = rows * np.sin(angle) + columns * np.cos(angle)
    return 55 * np.sign(np.sin(across * (2 * np.pi / 8) + phase))


def _distinct_hues(rng: np.random.Generator, count: int) -> np.ndarray:
    """Hues at steps of a wheel of at least 8 that is itself turned at random."""
    steps = max(8, count)
    return (rng.permutation(steps)[:count] / steps + rng.uniform()) % 1.0


def _colour(rng: np.random.Generator, hue: float) -> np.ndarray:
    hue = (hue + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 1.0
    return 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 0.9), rng.uniform(0.8, 0.9)))

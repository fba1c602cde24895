"""The drawing behind the generated dataset: one scene from one random generator."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

BACKGROUND, TEXTURE_A, TEXTURE_B, PAIRED, RED, GREEN, CYAN, VIOLET = range(8)
COLOURS = (RED, GREEN, CYAN, VIOLET)  # evenly spaced on the colour wheel

_UNIT = 192  # the radii below are for a canvas whose shorter side has this many pixels
_DISC_RADII = (15.0, 17.0)
_TEXTURES = 2
_TEXTURE_RADII = (20.0, 28.0)
_BEACON_RADIUS = 14.0  # unless told
_BEACON_CORE = 0.8  # of its radius; the rest is a rim of the opposite kind
_DOT = 0.45  # radius of the dot of a dotted disc, of the radius of the disc
_DARK, _LIGHT = 20.0, 235.0
_MARGIN = 3.0  # between two things, and to the border
_HUE_JITTER = 0.01  # of the colour wheel, to either side


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
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    couples: int,
    reach: float,
    beacon: float = _BEACON_RADIUS,
) -> Layout:
    """Places a beacon, texture areas far from it, and couples of discs far from each other.

    Args:
        rng: source of all randomness.
        size: (height, width) of the canvas.
        couples: number of couples of discs.
        reach: pixels to keep between the beacon and every texture area, and between the two discs
            of a couple; at most a third of the shorter side, less where the canvas is too narrow.
        beacon: radius of the beacon on a canvas whose shorter side has 192 pixels.

    Returns:
        A layout in which nothing overlaps.
    """
    scale = min(1.5, min(size) / _UNIT)
    reach = min(reach, 0.32 * min(size))
    while True:
        for _ in range(20):
            layout = _try_layout(_Canvas(rng, size, scale), couples, reach, beacon)
            if layout is not None:
                return layout
        reach, scale = 0.9 * reach, 0.97 * scale


@dataclass(frozen=True)
class Thing:
    """One drawn thing: what it looks like, what it means, and its pixels."""

    kind: str  # "texture", "plain" or "dotted" (a disc), or "beacon"
    label: int
    mask: np.ndarray


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int], **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene; arguments as of :func:`draw_things`.

    Returns:
        image (H, W, 3) uint8 RGB and label (H, W) uint8.
    """
    image, things = draw_things(rng, size, **options)
    label = np.full(size, BACKGROUND, np.uint8)
    for thing in things:
        label[thing.mask] = thing.label
    return image, label


def draw_things(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    beacon_kind: int,
    present: Sequence[tuple[bool, bool]],
    reach: float = 60.0,
    noise: float = 12.0,
    beacon: float = _BEACON_RADIUS,
) -> tuple[np.ndarray, list[Thing]]:
    """Draws one scene.

    Args:
        rng: source of all randomness; what it draws does not depend on the other arguments' values.
        size: (height, width).
        beacon_kind: 0 or 1, the fact that turns every texture area into A or B.
        present: for each of at most four couples, in colours of their own, whether the plain disc
            and whether the dotted disc is there.
        reach: see :func:`draw_layout`.
        noise: standard deviation of the pixel noise, in grey values.
        beacon: see :func:`draw_layout`.

    Returns:
        image (H, W, 3) uint8 RGB and the things in it, of which no two overlap.
    """
    layout = draw_layout(rng, size, couples=len(present), reach=reach, beacon=beacon)
    image = _background(rng, size)
    things = []
    grid = np.mgrid[: size[0], : size[1]].astype(np.float32)
    announced = TEXTURE_B if beacon_kind else TEXTURE_A

    for disc in layout.textures:
        inside = _distance(grid, disc) <= disc.radius
        image[inside] += _stripes(rng, *grid[:, inside])[:, None]
        things.append(Thing("texture", announced, inside))

    order = rng.permutation(len(COLOURS))[: len(present)]
    for couple, there, colour in zip(layout.couples, present, order, strict=True):
        for disc, drawn, kind in zip(couple, there, ("plain", "dotted"), strict=True):
            shade = _colour(rng, colour / len(COLOURS))
            if drawn:
                distance = _distance(grid, disc) / disc.radius
                image[distance <= 1] = shade
                if kind == "dotted":
                    image[distance <= _DOT] = _DARK
                paired = all(there) and kind == "plain"
                things.append(Thing(kind, PAIRED if paired else COLOURS[colour], distance <= 1))

    beacon_mask = _draw_beacon(image, grid, layout.beacon, beacon_kind)
    things.append(Thing("beacon", announced, beacon_mask))
    image += rng.normal(0.0, noise, image.shape)
    return image.round().clip(0, 255).astype(np.uint8), things


@dataclass
class _Canvas:
    rng: np.random.Generator
    size: tuple[int, int]
    scale: float
    placed: list[Disc] = field(default_factory=list)

    def place(self, radii: tuple[float, float], far_from: Disc | None, reach: float) -> Disc | None:
        """Finds a free place by trial."""
        radius = self.scale * self.rng.uniform(*radii)
        margin = self.scale * _MARGIN
        edge = radius + margin
        for _ in range(30):
            y, x = (self.rng.uniform(edge, side - edge) for side in self.size)
            disc = Disc(y, x, radius)
            free = all(disc.gap(other) >= margin for other in self.placed)
            if free and (far_from is None or disc.gap(far_from) >= reach):
                self.placed.append(disc)
                return disc
        return None


def _try_layout(canvas: _Canvas, couples: int, reach: float, radius: float) -> Layout | None:
    beacon = canvas.place((radius, radius), None, reach)
    areas = [canvas.place(_TEXTURE_RADII, beacon, reach) for _ in range(_TEXTURES)]
    pairs = []
    for _ in range(couples):
        first = canvas.place(_DISC_RADII, None, reach)
        second = canvas.place(_DISC_RADII, first, reach)
        if first is not None and second is not None:
            pairs.append((first, second))
    placed = tuple(area for area in areas if area is not None)
    if beacon is None or len(placed) < _TEXTURES or len(pairs) < couples:
        return None
    return Layout(beacon, placed, tuple(pairs))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Soft grey clouds, (H, W, 3) float32."""
    clouds = Image.fromarray(rng.uniform(75, 155, (5, 5)).astype(np.float32))
    grey = np.asarray(clouds.resize(size[::-1], Image.Resampling.BICUBIC))
    return grey[..., None] + rng.uniform(-10, 10, 3).astype(np.float32)


def _distance(grid: np.ndarray, disc: Disc) -> np.ndarray:
    """Pixels to the middle of a disc: (2, H, W) rows and columns -> (H, W)."""
    return np.hypot(grid[0] - disc.y, grid[1] - disc.x)


def _draw_beacon(image: np.ndarray, grid: np.ndarray, disc: Disc, kind: int) -> np.ndarray:
    """Draws into ``image``, light in a dark rim or dark in a light one; returns the pixels."""
    distance = _distance(grid, disc) / disc.radius
    inside = distance <= 1
    core = distance[inside] <= _BEACON_CORE
    image[inside] = np.where(core == bool(kind), _LIGHT, _DARK)[:, None]
    return inside


def _stripes(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Stripes 8 pixels apart, in a random direction and phase."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    across = rows * np.sin(angle) + columns * np.cos(angle)
    return 55 * np.sign(np.sin(across * (2 * np.pi / 8) + phase))


def _colour(rng: np.random.Generator, hue: float) -> np.ndarray:
    hue = (hue + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 1.0
    return 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 0.9), rng.uniform(0.8, 0.9)))

"""The layers of a scene as coloured points and lines, for any graphics library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from spslam.errors import ConfigError
from spslam.notices import counted
from spslam.typing import BoolArray, FloatArray, IntArray
from spslam.visualization.map_view import (
    MapView,
    Viewpoint,
    choose_viewpoint,
    frustum_lines,
    inlier_points,
    typical_size,
    up_direction,
)
from spslam.visualization.path_views import gaps

Color = tuple[float, float, float]
PointColors = Literal["height", "age"]

# The layers, and the keys that show or hide them.
LAYERS = {
    "points": "P",
    "trajectory": "T",
    "keyframes": "K",
    "covisibility": "V",
    "loops": "L",
    "truth": "G",
    "grid": "X",
}
POINT_COLORS: tuple[PointColors, ...] = get_args(PointColors)

# Size of the latest camera's frustum, ratio to a keyframe's.
_CAMERA_SIZE = 1.6
# Arches that show loops: number of lines of each; height, ratio to its length; minimum height,
# sizes of a frustum.
_ARCH_LINES, _ARCH_RISE, _ARCH_FRUSTA = 8, 0.35, 4.0
# Approximate number of squares of the grid along the longer side of the scene.
_SQUARES = 12
# Percentile of the heights of points at which the grid lies.
_FLOOR_PERCENT = 4.0
# Percentiles of the heights of points that have the lowest and the highest colour.
_RANGE_PERCENT = (3.0, 97.0)


@dataclass(frozen=True)
class Palette:
    """Colours (red, green, blue), 0 to 1; ramps (C, 3) go from low to high, or from old to new."""

    background: Color
    text: Color
    trajectory: Color
    camera: Color
    keyframes: Color
    covisibility: Color
    loops: Color
    truth: Color
    grid: Color
    height: tuple[Color, ...]
    age: tuple[Color, ...]


# Trajectory, ground truth, keyframes and loops also differ in lightness, for colour-blind people.
LIGHT = Palette(
    background=(1.0, 1.0, 1.0),
    text=(0.25, 0.25, 0.28),
    trajectory=(0.86, 0.30, 0.0),
    camera=(0.70, 0.10, 0.05),
    keyframes=(0.16, 0.42, 0.80),
    covisibility=(0.55, 0.66, 0.82),
    loops=(0.78, 0.08, 0.60),
    truth=(0.10, 0.10, 0.12),
    grid=(0.78, 0.78, 0.81),
    height=(
        (0.29, 0.20, 0.50),
        (0.20, 0.40, 0.62),
        (0.12, 0.58, 0.56),
        (0.36, 0.68, 0.33),
        (0.74, 0.70, 0.16),
    ),
    age=(
        (0.16, 0.14, 0.45),
        (0.45, 0.15, 0.58),
        (0.72, 0.26, 0.48),
        (0.90, 0.46, 0.28),
        (0.93, 0.70, 0.16),
    ),
)
DARK = Palette(
    background=(0.055, 0.065, 0.085),
    text=(0.75, 0.75, 0.75),
    trajectory=(1.0, 0.62, 0.12),
    camera=(1.0, 0.85, 0.55),
    keyframes=(0.35, 0.65, 1.0),
    covisibility=(0.26, 0.38, 0.54),
    loops=(1.0, 0.40, 0.85),
    truth=(0.55, 0.95, 0.65),
    grid=(0.18, 0.20, 0.24),
    height=(
        (0.36, 0.30, 0.70),
        (0.25, 0.53, 0.76),
        (0.28, 0.74, 0.68),
        (0.65, 0.85, 0.48),
        (0.98, 0.91, 0.55),
    ),
    age=(
        (0.30, 0.28, 0.72),
        (0.56, 0.30, 0.78),
        (0.84, 0.40, 0.62),
        (0.97, 0.58, 0.38),
        (0.98, 0.86, 0.40),
    ),
)


@dataclass(frozen=True)
class Look:
    """The style of a scene.

    Attributes:
        hidden: names of the layers that are not drawn.
        colors: what the colours of points show.
        dark: whether the background is dark.
    """

    hidden: frozenset[str] = frozenset()
    colors: PointColors = "height"
    dark: bool = False

    @property
    def palette(self) -> Palette:
        """The colours of the layers."""
        return DARK if self.dark else LIGHT

    def toggled(self, layer: str) -> Look:
        """Return the style with a layer shown instead of hidden, or hidden instead of shown."""
        return replace(self, hidden=self.hidden ^ {layer})

    def recolored(self) -> Look:
        """Return the style with the next one of `POINT_COLORS`."""
        return replace(
            self, colors=POINT_COLORS[(POINT_COLORS.index(self.colors) + 1) % len(POINT_COLORS)]
        )


@dataclass(frozen=True, eq=False)
class Points:
    """Points (P, 3) with their colours (P, 3)."""

    positions: FloatArray
    colors: FloatArray


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of one colour.

    Attributes:
        starts, ends: (N, 3).
        color: colour of all lines.
        width: pixels, for all lines or for each start and end (N, 2); 0: hairlines, which are as
            thin as possible at any distance.
    """

    starts: FloatArray
    ends: FloatArray
    color: Color
    width: float | FloatArray = 0.0

    @property
    def hairs(self) -> bool:
        """Whether all lines are hairlines."""
        return not np.any(self.width)


Layer = Points | Lines


@dataclass(frozen=True, eq=False)
class Framing:
    """Properties of a whole scene, which stay the same while only a part of it is shown.

    Attributes:
        viewpoint: viewpoint of the overview.
        up: (3,) unit vector.
        heights: heights along `up` with the lowest and the highest colour, metres or map units.
        ages: values of `MapView.point_ages` with the first and the last colour.
        frustum: size of a keyframe's frustum, metres or map units.
        grid: starts and ends (G, 3) of the grid's lines.
        square: side of a square of the grid, metres or map units.
    """

    viewpoint: Viewpoint
    up: FloatArray
    heights: tuple[float, float]
    ages: tuple[float, float]
    frustum: float
    grid: tuple[FloatArray, FloatArray]
    square: float


def frame_map_view(scene: MapView, aspect: float) -> Framing:
    """Compute the framing of a scene.

    Args:
        scene: the whole scene.
        aspect: width of the picture divided by its height.
    """
    up = up_direction(scene)
    kept = inlier_points(scene)
    heights = _range(scene.points[kept] @ up)
    grid, square = _grid(scene, kept, up)
    ages = scene.point_ages[np.isfinite(scene.point_ages)]
    span = (float(ages.min()), float(ages.max())) if len(ages) else (0.0, 1.0)
    return Framing(
        choose_viewpoint(scene, aspect), up, heights, span, typical_size(scene), grid, square
    )


def draw_layers(
    scene: MapView, look: Look, framing: Framing, moving: bool = False
) -> dict[str, Layer]:
    """Build the layers of a scene, by name; hidden and empty layers are omitted.

    Args:
        scene: the whole scene, or the scene until a time.
        look: style of the scene.
        framing: framing of the whole scene.
        moving: draw the latest camera as well.
    """
    palette = look.palette
    centres = scene.keyframes[:, :3, 3]
    frusta = frustum_lines(scene.keyframes, framing.frustum)
    drawn: dict[str, Layer] = {
        "points": _points(scene, look, framing),
        "trajectory": Lines(*_path(scene.trajectory, scene.times), palette.trajectory, 3.8),
        "keyframes": Lines(*frusta, palette.keyframes, 1.2),
        "covisibility": Lines(*_edges(centres, scene.covisible), palette.covisibility),
        "loops": Lines(*_arches(*_edges(centres, scene.loops), framing), palette.loops, 2.6),
        "truth": Lines(*_path(scene.ground_truth, scene.truth_times), palette.truth, 2.0),
        "grid": Lines(*framing.grid, palette.grid),
    }
    drawn = {
        name: layer for name, layer in drawn.items() if name not in look.hidden and _count(layer)
    }
    if moving and "trajectory" not in look.hidden and len(scene.trajectory):
        camera = frustum_lines(scene.trajectory[-1:], _CAMERA_SIZE * framing.frustum)
        drawn["camera"] = Lines(*camera, palette.camera, 2.4)
    return drawn


def thicken_hairs(layers: Mapping[str, Layer], view: Viewpoint, width: float) -> dict[str, Layer]:
    """Replace hairlines by lines that look `width` pixels wide from `view`, and only from there."""
    return {
        name: replace(
            layer, width=width * view.relative_depths(np.stack([layer.starts, layer.ends], axis=1))
        )
        if isinstance(layer, Lines) and layer.hairs
        else layer
        for name, layer in layers.items()
    }


def legend(scene: MapView, look: Look, framing: Framing) -> list[tuple[str, Color]]:
    """The lines of the legend from top to bottom: the text and the colour of each layer."""
    palette = look.palette
    shown = int(np.count_nonzero(inlier_points(scene)))
    rows = {
        "trajectory": (
            f"trajectory, {counted(len(scene.trajectory), 'pose')}",
            palette.trajectory,
            len(scene.trajectory),
        ),
        "truth": ("ground truth", palette.truth, len(scene.ground_truth)),
        "keyframes": (
            counted(len(scene.keyframes), "keyframe"),
            palette.keyframes,
            len(scene.keyframes),
        ),
        "covisibility": (
            "keyframes that share points",
            palette.covisibility,
            len(scene.covisible),
        ),
        "loops": (counted(len(scene.loops), "closed loop"), palette.loops, len(scene.loops)),
        "points": (
            f"{shown} of {counted(len(scene.points), 'point')}",
            palette.text,
            len(scene.points),
        ),
        "grid": (f"grid: {framing.square:g} {scene.unit}", palette.text, len(framing.grid[0])),
    }
    return [
        (text, color)
        for name, (text, color, count) in rows.items()
        if count and name not in look.hidden
    ]


def color_bar(
    scene: MapView, look: Look, framing: Framing
) -> tuple[tuple[Color, ...], str, str] | None:
    """The ramp of the points' colours and the texts at its ends; None if no points are drawn."""
    if "points" in look.hidden or len(scene.points) == 0:
        return None
    if look.colors == "age":
        return look.palette.age, "old points", "new"
    low, high = framing.heights
    return look.palette.height, f"low points, 0 {scene.unit}", f"{high - low:.3g} {scene.unit}"


def check_layers(names: Iterable[str]) -> frozenset[str]:
    """Check names of layers and return them as a set.

    Raises:
        ConfigError: a layer does not exist.
    """
    given = frozenset(names)
    if unknown := sorted(given - LAYERS.keys()):
        raise ConfigError(f"no layer named {unknown[0]!r}: expected one of {', '.join(LAYERS)}")
    return given


def ramp_colors(fraction: FloatArray, ramp: tuple[Color, ...]) -> FloatArray:
    """Colours (P, 3) at positions (P,), 0 to 1, along a ramp."""
    stops = np.linspace(0.0, 1.0, len(ramp))
    return np.stack([np.interp(fraction, stops, channel) for channel in np.array(ramp).T], axis=1)


def _points(scene: MapView, look: Look, framing: Framing) -> Points:
    kept = inlier_points(scene)
    if look.colors == "age":
        values, (low, high), ramp = scene.point_ages[kept], framing.ages, look.palette.age
    else:
        values, (low, high), ramp = (
            scene.points[kept] @ framing.up,
            framing.heights,
            look.palette.height,
        )
    fraction = (np.maximum(values, low) - low) / max(high - low, 1e-9)
    return Points(scene.points[kept], ramp_colors(fraction, ramp))


def _path(poses: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Starts and ends of the steps from each position to the next, without gaps in time."""
    positions = poses[:, :3, 3]
    goes_on = (
        ~gaps(times) if np.isfinite(times).all() else np.ones(max(len(poses) - 1, 0), dtype=bool)
    )
    return positions[:-1][goes_on], positions[1:][goes_on]


def _edges(centres: FloatArray, pairs: IntArray) -> tuple[FloatArray, FloatArray]:
    return centres[pairs[:, 0]], centres[pairs[:, 1]]


def _arches(
    starts: FloatArray, ends: FloatArray, framing: Framing
) -> tuple[FloatArray, FloatArray]:
    """Lines (8·L, 3) of arches from starts to ends (L, 3).

    They are arches because the two ends of a well-closed loop are almost the same point.
    """
    fraction = np.linspace(0.0, 1.0, _ARCH_LINES + 1)[:, None, None]
    height = np.maximum(
        _ARCH_RISE * np.linalg.norm(ends - starts, axis=1), _ARCH_FRUSTA * framing.frustum
    )
    curve = (
        starts
        + fraction * (ends - starts)
        + 4.0 * fraction * (1.0 - fraction) * height[:, None] * framing.up
    )
    return curve[:-1].reshape(-1, 3), curve[1:].reshape(-1, 3)


def _count(layer: Layer) -> int:
    return len(layer.positions) if isinstance(layer, Points) else len(layer.starts)


def _range(values: FloatArray) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, _RANGE_PERCENT)
    return float(low), float(high)


def _grid(
    scene: MapView, kept: BoolArray, up: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], float]:
    """Starts and ends (G, 3) of a grid on the ground plane, and the side of its squares.

    The side is 1, 2 or 5 times a power of ten.
    """
    points, path = scene.points[kept], scene.path
    content = np.concatenate([points, path])
    if len(content) == 0:
        return (np.zeros((0, 3)), np.zeros((0, 3))), 1.0
    across = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    across /= np.linalg.norm(across)
    axes = np.stack([across, np.cross(up, across)])
    flat = content @ axes.T
    low, high = np.percentile(flat, [1.0, 99.0], axis=0)
    square = _round_length(max(float((high - low).max()) / _SQUARES, 1e-6))
    first, last = np.floor(low / square), np.ceil(high / square)
    # Below the path as well: all points may be above the camera.
    heights = content @ up
    floor = min(
        float(np.percentile(heights, _FLOOR_PERCENT)),
        float((path @ up).min()) if len(path) else np.inf,
    )
    starts: list[FloatArray] = []
    ends: list[FloatArray] = []
    for along in (0, 1):
        steps = square * np.arange(first[along], last[along] + 1)
        for side, found in ((first, starts), (last, ends)):
            corner = np.zeros((len(steps), 2))
            corner[:, along], corner[:, 1 - along] = steps, square * side[1 - along]
            found.append(corner @ axes + floor * up)
    return (np.concatenate(starts), np.concatenate(ends)), square


def _round_length(length: float) -> float:
    power = 10.0 ** np.floor(np.log10(length))
    return float(
        power * min((1.0, 2.0, 5.0, 10.0), key=lambda step: abs(np.log(step * power / length)))
    )

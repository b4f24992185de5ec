"""What of a scene is drawn and in which colours, as points and lines: no graphics library, so any can draw it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from spslam.errors import ConfigError
from spslam.typing import BoolArray, FloatArray, IntArray
from spslam.visualization.path_views import gaps
from spslam.visualization.scene import (
    Scene,
    Viewpoint,
    choose_viewpoint,
    frustum_lines,
    inlier_points,
    typical_size,
    up_direction,
)

Color = tuple[float, float, float]
PointColors = Literal["height", "age"]

# The layers, and the key that hides or shows each.
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

# The latest camera is drawn larger than key frames.
_CAMERA_SIZE = 1.6
# Arches of loops: lines each, and height in their lengths or at least in frusta.
_ARCH_LINES, _ARCH_RISE, _ARCH_FRUSTA = 8, 0.35, 4.0
# Squares of the grid along the longer side of the scene, about.
_SQUARES = 12
# The floor is below all but this share of the points.
_FLOOR_PERCENT = 4.0
_RANGE_PERCENT = (3.0, 97.0)


@dataclass(frozen=True)
class Palette:
    """Colours, red green blue from 0 to 1; ramps (C, 3) go from low to high and from old to new."""

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


# Trajectory, truth, key frames and loops differ in lightness, too, for those who do not tell all colours apart.
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
    """How a scene is shown.

    Attributes:
        hidden: layers that are not drawn.
        colors: what the colour of a point tells.
        dark: the background.
    """

    hidden: frozenset[str] = frozenset()
    colors: PointColors = "height"
    dark: bool = False

    @property
    def palette(self) -> Palette:
        """The colours."""
        return DARK if self.dark else LIGHT

    def toggled(self, layer: str) -> Look:
        """The look with a layer hidden that was shown, or the other way round."""
        return replace(self, hidden=self.hidden ^ {layer})

    def recolored(self) -> Look:
        """The look with the points coloured by what comes next."""
        return replace(
            self, colors=POINT_COLORS[(POINT_COLORS.index(self.colors) + 1) % len(POINT_COLORS)]
        )


@dataclass(frozen=True, eq=False)
class Points:
    """Points (P, 3) with a colour each (P, 3)."""

    positions: FloatArray
    colors: FloatArray


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of one colour from `starts` to `ends` (N, 3), `width` pixels wide; 0 is a hair, always.

    A `width` (N, 2) is one for each start and end.
    """

    starts: FloatArray
    ends: FloatArray
    color: Color
    width: float | FloatArray = 0.0

    @property
    def hairs(self) -> bool:
        """Whether all are as thin as can be from wherever they are seen."""
        return not np.any(self.width)


Layer = Points | Lines


@dataclass(frozen=True, eq=False)
class Framing:
    """What follows from the whole of a scene, and stays as it is while parts of it are shown.

    Attributes:
        viewpoint: from where all of it is seen.
        up: (3,) unit vector.
        heights, ages: what the lowest and the highest colour stand for: lengths along `up`, `Scene.point_ages`.
        frustum: how large a key frame is drawn.
        grid: its lines, starts and ends (G, 3).
        square: how long a square's side is.
    """

    viewpoint: Viewpoint
    up: FloatArray
    heights: tuple[float, float]
    ages: tuple[float, float]
    frustum: float
    grid: tuple[FloatArray, FloatArray]
    square: float


def frame_scene(scene: Scene, aspect: float) -> Framing:
    """The framing of a scene in a picture of `aspect`, width over height."""
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
    scene: Scene, look: Look, framing: Framing, moving: bool = False
) -> dict[str, Layer]:
    """What is drawn of a scene, by layer; layers that are hidden or empty are left out.

    Args:
        scene: all of it, or what there was until a time.
        look: how it is shown.
        framing: of all of it.
        moving: draw the latest camera, too.
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
    """Layers with hairs that look `width` pixels wide from `view` and from there only."""
    return {
        name: replace(
            layer, width=width * view.relative_depths(np.stack([layer.starts, layer.ends], axis=1))
        )
        if isinstance(layer, Lines) and layer.hairs
        else layer
        for name, layer in layers.items()
    }


def legend(scene: Scene, look: Look, framing: Framing) -> list[tuple[str, Color]]:
    """Lines of text that say what is drawn, each with the colour that it speaks of, from the top down."""
    palette = look.palette
    shown = int(np.count_nonzero(inlier_points(scene)))
    rows = {
        "trajectory": (
            f"trajectory, {len(scene.trajectory)} poses",
            palette.trajectory,
            len(scene.trajectory),
        ),
        "truth": ("ground truth", palette.truth, len(scene.ground_truth)),
        "keyframes": (
            f"{len(scene.keyframes)} key frames",
            palette.keyframes,
            len(scene.keyframes),
        ),
        "covisibility": (
            "key frames that share points",
            palette.covisibility,
            len(scene.covisible),
        ),
        "loops": (f"{len(scene.loops)} closed loops", palette.loops, len(scene.loops)),
        "points": (f"{shown} of {len(scene.points)} points", palette.text, len(scene.points)),
        "grid": (f"grid: {framing.square:g} {scene.unit}", palette.text, len(framing.grid[0])),
    }
    if len(scene.loops) == 1:
        rows["loops"] = ("1 closed loop", *rows["loops"][1:])
    return [
        (text, color)
        for name, (text, color, count) in rows.items()
        if count and name not in look.hidden
    ]


def color_bar(
    scene: Scene, look: Look, framing: Framing
) -> tuple[tuple[Color, ...], str, str] | None:
    """The ramp of the points' colours with what its ends stand for; None where no points are drawn."""
    if "points" in look.hidden or len(scene.points) == 0:
        return None
    if look.colors == "age":
        return look.palette.age, "old points", "new"
    low, high = framing.heights
    return look.palette.height, f"low points, 0 {scene.unit}", f"{high - low:.3g} {scene.unit}"


def check_layers(names: Iterable[str]) -> frozenset[str]:
    """Names of layers as a set.

    Raises:
        ConfigError: there is no such layer.
    """
    given = frozenset(names)
    if unknown := sorted(given - LAYERS.keys()):
        raise ConfigError(f"no layer named {unknown[0]!r}: expected one of {', '.join(LAYERS)}")
    return given


def ramp_colors(share: FloatArray, ramp: tuple[Color, ...]) -> FloatArray:
    """(P, 3) colours at shares (P,) of the way along a ramp, 0 to 1."""
    stops = np.linspace(0.0, 1.0, len(ramp))
    return np.stack([np.interp(share, stops, channel) for channel in np.array(ramp).T], axis=1)


def _points(scene: Scene, look: Look, framing: Framing) -> Points:
    kept = inlier_points(scene)
    if look.colors == "age":
        values, (low, high), ramp = scene.point_ages[kept], framing.ages, look.palette.age
    else:
        values, (low, high), ramp = (
            scene.points[kept] @ framing.up,
            framing.heights,
            look.palette.height,
        )
    share = (np.maximum(values, low) - low) / max(high - low, 1e-9)
    return Points(scene.points[kept], ramp_colors(share, ramp))


def _path(poses: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From each position to the next, but across pauses."""
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
    """Lines (8·L, 3) of arches from starts to ends (L, 3): where a loop was closed well the two are one place."""
    share = np.linspace(0.0, 1.0, _ARCH_LINES + 1)[:, None, None]
    height = np.maximum(
        _ARCH_RISE * np.linalg.norm(ends - starts, axis=1), _ARCH_FRUSTA * framing.frustum
    )
    curve = (
        starts
        + share * (ends - starts)
        + 4.0 * share * (1.0 - share) * height[:, None] * framing.up
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
    scene: Scene, kept: BoolArray, up: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], float]:
    """Starts and ends (G, 3) of a grid on the floor, and the side of its squares: 1, 2 or 5 times a power of ten."""
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
    # Below the path, too: a camera may have looked at nothing but what is above it.
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

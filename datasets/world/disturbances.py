"""Kinds of disturbances of a recording, and their texts such as `mover:fraction=0.25,speed=4`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from spslam.errors import DatasetError
from spslam.notices import notice_renamed

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Still:
    """A camera that stands still: one frame is repeated, each time with new noise.

    Attributes:
        frame: index of the repeated frame.
        frames: how often the frame is shown.
        lead: number of frames before it that are shown first, so that mono can build a map.
        noise: standard deviation of the noise, grey levels.
        seed: seed of the noise.
    """

    frame: int = 0
    frames: int = 70
    lead: int = 0
    noise: float = 1.5
    seed: int = 0


@dataclass(frozen=True)
class Mover:
    """A flat textured box that moves by itself and hides what is behind it.

    Attributes:
        fraction: fraction of the image, 0 to 1, that it covers when it is completely in view.
        speed: speed, pixels per frame; in the world this adds to the motion of the camera. -1: the
            seed chooses 2.7, 3.3 or 4.
        depth: depth of the box, metres; in the world its depth when it crosses the view.
        start: the first frame that may show the box; it then comes in from outside.
        path: `stay`: it comes in and goes back and forth in view. `pass`: it crosses the view.
            `appear`: it appears in the middle and then goes back and forth.
        heading: direction in the image, degrees: 0 is right, 90 is down. -1: the seed chooses
            right, left or one of four slanting directions.
        world: whether it moves in the world instead of with the camera. This needs a ground truth,
            and the box then passes.
        detail: density of its texture, relative to a wall of the built-in worlds at the same depth.
        noise: standard deviation of the noise on it, grey levels.
        seed: seed of texture, heading and noise.
    """

    fraction: float = 0.25
    speed: float = 3.3
    depth: float = 1.2
    start: int = 12
    path: str = "stay"
    heading: float = -1.0
    world: bool = False
    detail: float = 2.5
    noise: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        possible = 0 < self.fraction < 1 and self.depth > 0 and self.detail > 0
        if not possible or (self.speed < 0 and self.speed != -1):
            raise DatasetError(
                "a mover has a fraction between 0 and 1, a depth and detail above 0 and a speed of "
                f"at least 0 or -1, found fraction={self.fraction} depth={self.depth} "
                f"detail={self.detail} speed={self.speed}"
            )
        if self.path not in ("stay", "pass", "appear"):
            raise DatasetError(f"a mover's path is stay, pass or appear, found {self.path!r}")


class _Delayed:
    """A disturbance that begins at a frame, put off by a random delay."""

    at: int
    within: int
    seed: int

    @property
    def first(self) -> int:
        """The first disturbed frame."""
        delay = np.random.default_rng([self.seed, 17]).integers(0, self.within + 1)
        return self.at + int(delay)


class _Recurring(_Delayed):
    """A disturbance of `frames` frames: once, or again after each `every` frames."""

    frames: int
    every: int

    def holds(self, index: int) -> bool:
        """Whether the frame at `index` is disturbed."""
        after = index - self.first
        return after >= 0 and (after % self.every if self.every else after) < self.frames


@dataclass(frozen=True)
class Dark(_Recurring):
    """Black frames, while the camera moves on.

    Attributes:
        at: the first black frame.
        frames: number of black frames.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
        every: number of frames after which it is dark again; 0: only once.
    """

    at: int = 100
    frames: int = 8
    within: int = 0
    seed: int = 0
    every: int = 0


@dataclass(frozen=True)
class Blur(_Recurring):
    """Frames blurred by a shake of the camera, sideways in the image.

    Attributes:
        at: the first blurred frame.
        frames: number of blurred frames.
        every: number of frames after which they are blurred again; 0: only once.
        length: length of the blur, pixels.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
    """

    at: int = 100
    frames: int = 1
    every: int = 0
    length: int = 31
    within: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DatasetError(
                f"blur: its length is at least one pixel, found length={self.length}"
            )


@dataclass(frozen=True)
class Jump(_Delayed):
    """A kidnapped camera: the frames of another place follow without a transition.

    Attributes:
        at: the first frame that shows the other place.
        to: index in the recording of the frame shown then; its successors follow.
        frames: number of frames from the other place; 0: all.
        back: whether the recording then continues at `at`.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
    """

    at: int = 150
    to: int = 20
    frames: int = 60
    back: bool = False
    within: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Body:
    """A part of the vehicle, such as a bonnet: a textured strip that keeps its place in the image.

    Attributes:
        fraction: fraction of the image, 0 to 1, that the strip at the bottom covers.
        depth: depth of the strip, metres; at once its disparity in pairs.
        black: whether the strip is black instead, as in an image that is cut by hand.
        noise: standard deviation of the noise on it, grey levels.
        seed: seed of texture and noise.
    """

    fraction: float = 0.2
    depth: float = 1.2
    black: bool = False
    noise: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and self.depth > 0):
            raise DatasetError(
                "a body has a fraction between 0 and 1 and a depth above 0, "
                f"found fraction={self.fraction} depth={self.depth}"
            )

    def rows(self, height: int) -> int:
        """Return the number of rows of an image of `height` rows that the strip covers."""
        return max(1, round(self.fraction * height))


Disturbance = Still | Mover | Dark | Blur | Jump | Body

_KINDS: dict[str, type[Disturbance]] = {"still": Still, "mover": Mover, "dark": Dark, "jump": Jump}
_KINDS |= {"body": Body, "blur": Blur}


def parse_disturbance(text: str) -> Disturbance:
    """Parse a disturbance such as `mover:fraction=0.25,speed=4`; missing keys have their defaults.

    Raises:
        DatasetError: the text names no disturbance, or one of its values is wrong.
    """
    name, _, rest = text.strip().partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise DatasetError(f"a disturbance is one of {', '.join(_KINDS)}, found {name!r}")
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if (kind, key) == (Mover, "share"):
            notice_renamed(_logger, f"disturbance {text!r}", "mover:share", "mover:fraction")
            key = "fraction"
        if not equals or key not in defaults:
            raise DatasetError(
                f"{name} takes {', '.join(f'{key}=…' for key in defaults)}, found {pair!r}"
            )
        values[key] = _value(name, key, value, defaults[key])
    return kind(**values)


def _value(name: str, key: str, value: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        number = type(default)(value)
    except (KeyError, ValueError):
        raise DatasetError(f"{name}: {key} must be like {default}, found {value!r}") from None
    if isinstance(number, int | float) and not (
        np.isfinite(number) and (number >= 0 or key in ("heading", "speed"))
    ):
        raise DatasetError(f"{name}: {key} must be finite and not negative, found {value}")
    return number


def first_frame(disturbance: Mover | Dark | Blur | Jump | Body) -> int:
    """Return the first frame that a disturbance may show in."""
    if isinstance(disturbance, Body):
        return 0
    return disturbance.start if isinstance(disturbance, Mover) else disturbance.first

"""The keys of a window that shows a scene, and what they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spslam.visualization.layers import LAYERS, Look

_LAYER_WORDS = {
    "points": "points",
    "trajectory": "trajectory",
    "keyframes": "key frames",
    "covisibility": "edges between key frames that share points",
    "loops": "closed loops",
    "truth": "ground truth",
    "grid": "grid",
}
# Those of layers, then the others.
KEYS = {
    **{key: _LAYER_WORDS[name] for name, key in LAYERS.items()},
    "C": "colour of points: height, age",
    "B": "background: light, dark",
    "F": "follow the camera, or stay",
    "R": "see all of it",
    "SPACE": "play from the beginning, pause (saved runs)",
    "LEFT": "one frame back (saved runs)",
    "RIGHT": "one frame on (saved runs)",
}


def keys_help() -> str:
    """The keys in two lines: layers, and the rest."""
    layers = ", ".join(f"{LAYERS[name]} {_LAYER_WORDS[name]}" for name in LAYERS)
    others = "; ".join(f"{key} {text}" for key, text in KEYS.items() if key not in LAYERS.values())
    return f"show or hide: {layers}\nkeys: {others}; Q close; mouse: turn, Ctrl+drag or middle button: move, wheel: zoom"


@dataclass
class Controls:
    """What the keys say.

    Attributes:
        look: how the scene is shown.
        following: whether the view goes along with the camera.
        playing: whether time goes on (saved runs).
        steps: frames on (or back) that were asked for and not yet taken.
        home: whether the view of all was asked for and not yet taken.
        changed: whether there is something to draw anew.
    """

    look: Look = field(default_factory=Look)
    following: bool = False
    playing: bool = False
    steps: int = 0
    home: bool = False
    changed: bool = True

    def bindings(self) -> dict[str, Callable[[], None]]:
        """What to call when a key of `KEYS` is pressed."""
        actions = {key: self._toggle(name) for name, key in LAYERS.items()}
        return actions | {
            "C": self._recolor,
            "B": self._background,
            "F": self._follow,
            "R": self._go_home,
            "SPACE": self._play,
            "LEFT": lambda: self._step(-1),
            "RIGHT": lambda: self._step(1),
        }

    def take_steps(self) -> int:
        """The steps asked for, which are taken now."""
        steps, self.steps = self.steps, 0
        return steps

    def take_home(self) -> bool:
        """Whether the view of all was asked for; it is taken now."""
        home, self.home = self.home, False
        return home

    def _toggle(self, layer: str) -> Callable[[], None]:
        def pressed() -> None:
            self.look, self.changed = self.look.toggled(layer), True

        return pressed

    def _recolor(self) -> None:
        self.look, self.changed = self.look.recolored(), True

    def _background(self) -> None:
        self.look, self.changed = replace(self.look, dark=not self.look.dark), True

    def _follow(self) -> None:
        self.following, self.changed = not self.following, True

    def _go_home(self) -> None:
        self.following, self.home, self.changed = False, True, True

    def _play(self) -> None:
        self.playing, self.changed = not self.playing, True

    def _step(self, frames: int) -> None:
        self.playing, self.changed = False, True
        self.steps += frames

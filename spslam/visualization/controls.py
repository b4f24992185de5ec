"""Keys of a window that shows a scene, and the state that they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spslam.visualization.layers import LAYERS, Look

# Names of the layers for people.
_LAYER_WORDS = {
    "points": "points",
    "trajectory": "trajectory",
    "keyframes": "keyframes",
    "covisibility": "edges between keyframes that share points",
    "loops": "closed loops",
    "truth": "ground truth",
    "grid": "grid",
}
# Descriptions of all keys: first those of layers, then the others.
KEYS = {
    **{key: _LAYER_WORDS[name] for name, key in LAYERS.items()},
    "C": "colour of points: height, age",
    "B": "background: light, dark",
    "F": "follow the camera, or stay",
    "R": "reset the view to the whole scene",
    "SPACE": "play from the beginning, pause (saved runs)",
    "LEFT": "one frame back (saved runs)",
    "RIGHT": "one frame forward (saved runs)",
}


def keys_help() -> str:
    """Describe the keys in two lines: layers, and the rest."""
    layers = ", ".join(f"{LAYERS[name]} {_LAYER_WORDS[name]}" for name in LAYERS)
    others = "; ".join(f"{key} {text}" for key, text in KEYS.items() if key not in LAYERS.values())
    return (
        f"show or hide: {layers}\nkeys: {others}; Q close; "
        "mouse: turn, Ctrl+drag or middle button: move, wheel: zoom"
    )


@dataclass
class Controls:
    """The state that the keys change.

    Attributes:
        look: style of the scene.
        following: whether the view moves with the camera.
        playing: whether the run is playing (saved runs).
        steps: number of requested and not yet applied frames forward (negative: back).
        home: whether the overview is requested and not yet applied.
        changed: whether the scene must be drawn again.
    """

    look: Look = field(default_factory=Look)
    following: bool = False
    playing: bool = False
    steps: int = 0
    home: bool = False
    changed: bool = True

    def bindings(self) -> dict[str, Callable[[], None]]:
        """The functions to call when keys of `KEYS` are pressed."""
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
        """Return the requested steps and reset them."""
        steps, self.steps = self.steps, 0
        return steps

    def take_home(self) -> bool:
        """Return whether the overview is requested and reset the request."""
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

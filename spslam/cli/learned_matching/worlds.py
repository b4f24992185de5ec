"""Views of built-in worlds for the training and the evaluation of matchers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spslam.frontend.learned_matching.data.views import PosedImage
    from spslam.frontend.learned_matching.training.run import SpotRenderer


def open_world(name: str, size: tuple[int, int], largest_angle_deg: float) -> SpotRenderer:
    """Open a built-in world; see `spslam.datasets.world.viewpoints.SpotViews`."""
    from spslam.datasets.world.viewpoints import SpotViews
    from spslam.frontend.learned_matching.data.views import PosedImage

    world = SpotViews(name, size, largest_angle_deg)

    def render(spot: int, count: int) -> Sequence[PosedImage]:
        return [
            PosedImage(view.image, view.depth, view.T_world_cam, world.camera.K)
            for view in world.views(spot, count)
        ]

    return render

"""Merge two maps that show the same place."""

from __future__ import annotations

import logging

from spslam.config import Config
from spslam.errors import MapError
from spslam.interfaces import Components
from spslam.map.io import SavedMap
from spslam.map.map import Map, Origin
from spslam.map.submaps import append_map, submap_numbers, submap_of
from spslam.notices import counted
from spslam.slam.loops.global_bundle import GlobalRefiner
from spslam.slam.loops.loop_closing import LoopCloser
from spslam.slam.mapping import Mapper
from spslam.slam.tracking import Tracker

logger = logging.getLogger(__name__)


def merge_maps(config: Config, components: Components, first: SavedMap, second: SavedMap) -> int:
    """Merge the second map into the first, by loops between their keyframes.

    Each keyframe of the second map is treated as a new keyframe. The first loop that another
    keyframe confirms joins the maps, later loops close the remaining gap, and global bundle
    adjustment refines the result. The place recognition index in `components` holds both maps
    afterwards.

    Args:
        config: of all stages.
        components: the objects that do the work.
        first: the map to extend, changed in place.
        second: the map to add.

    Returns:
        Number of closed loops.

    Raises:
        MapError: the maps have different cameras or front ends, or no place in common.
    """
    origin = _common_origin(first.map, second.map, components.extractor.identity)
    slam_map = first.map
    if first.places:
        components.place_recognition.restore(first.places)
    added = append_map(slam_map, second.map)
    for keyframe_id in added.tolist():
        components.place_recognition.add(
            keyframe_id, slam_map.observations_of(keyframe_id).descriptors
        )
    closer = _loop_closer(config, components)
    separate = len(submap_numbers(slam_map))
    closed = 0
    for keyframe_id in added.tolist():
        slam_map.submap = submap_of(slam_map, keyframe_id)
        closed += closer.close(slam_map, origin.camera, keyframe_id) is not None
    if len(submap_numbers(slam_map)) == separate:
        doubt = (
            f" ({counted(len(closer.doubted), 'keyframe fits', 'keyframes fit')} two similar "
            "places about as well)"
            if closer.doubted
            else ""
        )
        raise MapError(
            f"no place was found in both maps, of {len(slam_map.keyframes) - len(added)} and "
            f"{counted(len(added), 'keyframe')}{doubt}: they must show a common path from "
            "similar directions"
        )
    refiner = GlobalRefiner(config.global_bundle, components.global_bundle)
    slam_map.submap = int(slam_map.keyframes["submap"][0])
    refiner.start(slam_map, origin.camera)
    refiner.finish(slam_map)
    return closed


def _common_origin(first: Map, second: Map, extractor: str) -> Origin:
    origin = first.origin
    if (
        origin is None
        or second.origin is None
        or not (len(first.keyframes) and len(second.keyframes))
    ):
        raise MapError("only maps with keyframes can be merged")
    if (origin.sensor, origin.camera) != (second.origin.sensor, second.origin.camera):
        raise MapError("only maps of one camera can be merged: sensor or calibration differ")
    if first.descriptor_size != second.descriptor_size:
        raise MapError(
            f"descriptors of the maps have {first.descriptor_size} and {second.descriptor_size} "
            "numbers: only maps of one front end can be merged"
        )
    for found in (origin.extractor, second.origin.extractor):
        if found != extractor:
            raise MapError(
                f"a map was made with {found}, this command uses {extractor}: "
                "give the same --extractor and --weights"
            )
    return origin


def _loop_closer(config: Config, components: Components) -> LoopCloser:
    distance = components.extractor.max_descriptor_distance
    mapper = Mapper(config, components.matcher, components.two_view, components.bundle, distance)
    tracker = Tracker(config, components.matcher, components.pose_solver, distance)
    return LoopCloser.of(config, components, mapper, tracker)

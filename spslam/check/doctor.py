"""Examine a recording and its calibration: all checks together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from spslam.check.depth import DepthEvidence, check_depth
from spslam.check.findings import Finding, Level, Report
from spslam.check.fixed import FixedEvidence, check_fixed
from spslam.check.lens import check_lens, with_rotations
from spslam.check.motion import MotionEvidence, check_motion
from spslam.check.pictures import PictureEvidence, check_pictures
from spslam.check.sampling import Sample, all_stamps, read_clips
from spslam.check.stamps import are_picked, check_stamps
from spslam.check.stereo import StereoEvidence, check_stereo
from spslam.check.tracks import track
from spslam.check.truth import TruthEvidence, check_truth
from spslam.check.views import views_of
from spslam.config import Config
from spslam.errors import DatasetError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.notices import Notice, counted

# Fractions of frames that cannot be decoded for a warning and for an error.
_SOME_UNREADABLE, _MANY_UNREADABLE = 0.02, 0.5
# Fewest frames of a run.
_LEAST_FRAMES = 2
# Notices of readers that doubt the calibration; the others are notes.
_DOUBTS = {"calibration_doubt"}
# Notices that other checks report with numbers.
_REPEATED = {"unreadable_images", "duplicate_stamps", "equal_time_stamp", "clock_stepped_back"}


def examine(sequence: Sequence, config: Config, notices: Iterable[Notice] = ()) -> Report:
    """Examine a recording.

    Args:
        sequence: the recording.
        config: of the run for which it is checked.
        notices: what the reader reported when it opened the recording.

    Raises:
        DatasetError: not one frame can be decoded.
    """
    report, sample = Report(sequence.name, length=len(sequence)), Sample()
    pictures, motion, fixed = PictureEvidence(), MotionEvidence(), FixedEvidence()
    stereo, depth, truth = StereoEvidence(), DepthEvidence(), TruthEvidence()
    for clip in read_clips(sequence, sample):
        clip = _of_one_size(clip)
        tracks = track(clip)
        views = views_of(clip, tracks)
        pictures.add(clip, tracks)
        motion.add(clip, tracks, views)
        fixed.add(clip, tracks)
        stereo.add(clip)
        depth.add(clip)
        if sequence.ground_truth is not None:
            truth.add(clip, tracks, views)
    if sample.frames == 0:
        reason = sample.unreadable[0] if sample.unreadable else "it is empty"
        raise DatasetError(f"{sequence.name}: no frame can be decoded: {reason}")
    stamps = all_stamps(sequence)
    picked = stamps is not None and are_picked(stamps)
    report.frames = sample.frames
    report.add(_input(sequence, sample, notices))
    report.add(check_stamps(sequence, sample))
    report.add(check_pictures(pictures))
    report.add(check_fixed(fixed, motion.stands_still))
    report.add(check_motion(motion, sequence.sensor, picked))
    report.add(check_stereo(stereo))
    scale = getattr(sequence, "depth_scale", None)
    report.add(check_depth(depth, config.depth, scale, motion.usual_px))
    # Points of interlaced frames are of two moments.
    views = [] if "interlaced" in report.topics("warning") else motion.views
    turned = with_rotations(views, sequence.camera)
    lens = [*check_lens(turned, sequence.camera)]
    report.add(lens)
    if any(finding.level == "warning" for finding in lens):
        # Motions by a wrong camera model say nothing about the ground truth.
        turned, truth = [], TruthEvidence()
    report.add(check_truth(sequence.ground_truth, np.array(sample.stamps), turned, truth))
    return report


def _of_one_size(clip: list[Frame]) -> list[Frame]:
    """Return the frames of a clip that have the size of its first one."""
    return [frame for frame in clip if frame.image.shape == clip[0].image.shape]


def _input(sequence: Sequence, sample: Sample, notices: Iterable[Notice]) -> Iterable[Finding]:
    for found in notices:
        if found.topic not in _REPEATED:
            level: Level = "warning" if found.topic in _DOUBTS else "note"
            yield Finding("input", found.topic, level, found.text)
    unreadable = len(sample.unreadable)
    fraction = unreadable / max(sample.tried, 1)
    if unreadable:
        level = "warning" if fraction > _SOME_UNREADABLE else "note"
        yield Finding(
            "input",
            "unreadable",
            "error" if fraction > _MANY_UNREADABLE else level,
            f"{unreadable} of {counted(sample.tried, 'frame')} cannot be used, the first: "
            f"{sample.unreadable[0]}",
            "0",
            "copy the recording again, or leave these files out",
            fraction,
        )
    if len(sequence) < _LEAST_FRAMES:
        yield Finding(
            "input",
            "one_frame",
            "error" if sequence.sensor == "mono" else "warning",
            "there is one frame",
            "at least 2",
            "give the folder of all images",
            1,
        )
    if sample.span < len(sequence):
        yield Finding(
            "input",
            "start_only",
            "note",
            f"the video is long: only its first {counted(sample.span, 'frame')} were examined",
            "",
            "--start examines another part",
            sample.span,
        )
    camera = sequence.camera
    lens = "" if camera.distortion_model == "none" else f", {camera.distortion_model}"
    yield Finding(
        "input",
        "input",
        "ok",
        f"{sequence.dataset}, {sequence.sensor}, {counted(len(sequence), 'frame')} of "
        f"{camera.width}x{camera.height} pixels, focal length {camera.fx:.0f}{lens}",
    )

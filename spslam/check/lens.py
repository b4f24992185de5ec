"""Check focal length, distortion, principal point and shutter by the motion of the camera.

See `spslam.check.lens_fit` for the method. A number is judged only where the motion determines it:
its standard deviation must be small, and the matches must fit clearly better with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from spslam import geometry
from spslam.camera import Camera
from spslam.check.findings import Finding
from spslam.check.lens_fit import (
    CENTRE_X,
    CENTRE_Y,
    FOCAL,
    RADIAL,
    READOUT,
    Lens,
    LensFit,
)
from spslam.check.views import View

# Most pairs that are used, and fewest pairs and matches for a judgement.
_MOST_VIEWS, _LEAST_VIEWS, _LEAST_MATCHES = 12, 4, 300
# Least parallax of a pair, degrees: without parallax, the epipolar geometry is undetermined.
_PARALLAX = 0.2
# Least gain: decrease of the robust cost per match (about 1 if matches that were one standard
# deviation away then fit) by one group of parameters; by the first parameter of the group.
_GAIN = {FOCAL: 0.12, RADIAL: 0.04, READOUT: 0.05, CENTRE_X: 0.12}
# A group earlier in the list is preferred if its gain is at least this fraction of the largest.
_ALMOST = 0.8
# Least ratio of a number to its standard deviation.
_SIGNIFICANT = 5.0
# Least change that is a finding: of the focal length (relative), of the displacement by distortion
# at the corners (fraction of the width), of the principal point (fraction of the width).
_FOCAL, _BEND, _CENTRE = 0.08, 0.015, 0.06
# Largest standard deviations of the focal length (relative) and of k1 to judge them.
_FOCAL_SIGMA, _BEND_SIGMA = 0.06, 0.05
# Least ratio of what half of the clips say to what all say.
_AGREE = 0.6
# Read-out time, fraction of a frame step: least and largest one that is plausible.
_READOUT, _LONGEST_READOUT = 0.15, 1.05
# Standard deviation of the focal length up to which it is printed.
_KNOWN = 0.05
# Fewest pairs and matches to judge the shutter, which also takes up errors of few points.
_SHUTTER_VIEWS, _SHUTTER_MATCHES = 4, 350
# Groups of parameters in the order of preference.
_GROUPS = ((FOCAL,), (RADIAL,), (READOUT,), (CENTRE_X, CENTRE_Y))
_GROUPS_WITHOUT_SHUTTER = ((FOCAL,), (RADIAL,), (CENTRE_X, CENTRE_Y))


def check_lens(views: Sequence[View], camera: Camera) -> Iterator[Finding]:
    """Yield the findings about the camera model.

    Args:
        views: pairs of frames with matches.
        camera: the camera of the frames.
    """
    chosen = _informative(views)
    matches = sum(len(view.matches.first) for view in chosen)
    if len(chosen) < _LEAST_VIEWS or matches < _LEAST_MATCHES:
        yield Finding(
            "camera",
            "lens_unknown",
            "ok",
            "the camera model cannot be judged from these images (too little parallax or matches)",
        )
        return
    fit = LensFit([view.matches for view in chosen], camera)
    base = fit.fit(())
    shutter = len(chosen) >= _SHUTTER_VIEWS and matches >= _SHUTTER_MATCHES
    steps = _select(fit, base, _GROUPS if shutter else _GROUPS_WITHOUT_SHUTTER)
    if not _is_confirmed(steps, chosen, camera):
        steps = []
    found = [finding for group, lens in steps for finding in _describe(group, lens, camera)]
    yield from found
    if not found:
        focal = fit.fit((FOCAL,), base)
        sigma = float(focal.sigma[FOCAL])
        text = f"matches are {base.rms_px:.2f} px from their epipolar lines"
        if sigma < _KNOWN:
            best = camera.fx * float(np.exp(focal.values[FOCAL]))
            text += f", focal length {best:.0f} ± {100 * sigma:.1f} % fits best ({camera.fx:.0f})"
        yield Finding("camera", "lens", "ok", text, value=base.rms_px)


def with_rotations(views: Sequence[View], camera: Camera) -> list[View]:
    """Return pairs with the rotation of their essential matrix where there is enough parallax.

    The rotation without a translation, which they have before, takes over part of the translation.
    """
    near = [view for view in views if view.parallax_deg >= _PARALLAX]
    if not near:
        return list(views)
    turns = LensFit([view.matches for view in near], camera).fit(()).motions[0]
    better = {id(view): R for view, R in zip(near, turns, strict=True)}
    found = []
    for view in views:
        R = better.get(id(view), view.R)
        angle = np.degrees(np.linalg.norm(geometry.so3_log(R)))
        found.append(replace(view, R=R, rotation_deg=float(angle)))
    return found


def _informative(views: Sequence[View]) -> list[View]:
    """Return the pairs with the most parallax, spread over the recording."""
    good = [view for view in views if view.parallax_deg >= _PARALLAX]
    # Prefer turning: only rotation tells the focal length.
    good.sort(key=lambda view: -min(view.rotation_deg, 8.0) - view.parallax_deg)
    return good[:_MOST_VIEWS]


def _select(
    fit: LensFit, base: Lens, groups: Sequence[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], Lens]]:
    """Choose the group of parameters that helps most, and after a rolling shutter one more."""
    chosen: tuple[int, ...] = ()
    steps: list[tuple[tuple[int, ...], Lens]] = []
    best = base
    while not steps or steps[-1][0] == (READOUT,):
        tried = {
            group: fit.fit((*chosen, *group), best) for group in groups if group[0] not in chosen
        }
        gains = {
            group: (fit.cost(best, lens.rms_px) - fit.cost(lens, lens.rms_px)) / lens.count
            for group, lens in tried.items()
        }
        group = next(name for name, gain in gains.items() if gain >= _ALMOST * max(gains.values()))
        lens = tried[group]
        significant = np.abs(lens.values[list(group)]) > _SIGNIFICANT * lens.sigma[list(group)]
        if gains[group] < _GAIN[group[0]] or not significant.any():
            break
        chosen, best = (*chosen, *group), lens
        steps.append((group, lens))
    return steps


def _is_confirmed(
    steps: Sequence[tuple[tuple[int, ...], Lens]], views: Sequence[View], camera: Camera
) -> bool:
    """Whether each half of the clips says the same as all of them.

    A moving car or a wrong match changes what one clip says, a wrong camera what all say.
    """
    starts = sorted({view.start_s for view in views})
    parameters = tuple(parameter for group, _ in steps for parameter in group)
    for half in (starts[::2], starts[1::2]) if steps else ():
        mine = [view.matches for view in views if view.start_s in half]
        if not mine:
            return False
        lens = LensFit(mine, camera).fit(parameters)
        for group, whole in steps:
            main = max(group, key=lambda parameter: abs(float(whole.values[parameter])))
            share = float(lens.values[main] / whole.values[main])
            if not _AGREE <= share <= 1.0 / _AGREE:
                return False
    return True


def _describe(group: tuple[int, ...], lens: Lens, camera: Camera) -> Iterator[Finding]:
    if group == (FOCAL,):
        yield from _focal(lens, camera)
    elif group == (RADIAL,):
        yield from _distortion(lens, camera)
    elif group == (READOUT,):
        yield from _shutter(lens, camera)
    else:
        yield from _centre(lens, camera)


def _focal(lens: Lens, camera: Camera) -> Iterator[Finding]:
    change, sigma = float(lens.values[FOCAL]), float(lens.sigma[FOCAL])
    if abs(change) < _FOCAL or sigma > _FOCAL_SIGMA:
        return
    better = camera.fx * float(np.exp(change))
    percent = 100.0 * abs(camera.fx / better - 1.0)
    yield Finding(
        "camera",
        "focal_length",
        "warning",
        f"the focal length seems {percent:.0f} % too {'long' if change < 0 else 'short'}: "
        f"{better:.0f} (± {100 * sigma:.1f} %) fits better than {camera.fx:.0f}",
        f"within {100 * _FOCAL:.0f} %",
        "calibrate the camera, or scale the calibration to the size of these images",
        better / camera.fx,
    )


def _distortion(lens: Lens, camera: Camera) -> Iterator[Finding]:
    k, sigma = float(lens.values[RADIAL]), float(lens.sigma[RADIAL])
    fx, fy = camera.ideal_focal
    corner = float(np.hypot(camera.width / fx, camera.height / fy)) / 2.0
    bend_px = abs(k) * corner**3 * fx
    if bend_px < _BEND * camera.width or sigma > _BEND_SIGMA:
        return
    if camera.distortion_model == "none":
        advice = "calibrate the camera with its distortion, or undistort the images"
        left = "is left, although the calibration has none"
    else:
        advice = (
            "are the images rectified already? Then leave out the distortion; else calibrate again"
        )
        left = f"is left after undistorting ({camera.distortion_model})"
    yield Finding(
        "camera",
        "distortion",
        "warning",
        f"distortion of {bend_px:.0f} px in the corners {left} (k1 about {-k:.2f} ± {sigma:.2f})",
        f"below {_BEND * camera.width:.0f} px",
        advice,
        -k,
    )


def _shutter(lens: Lens, camera: Camera) -> Iterator[Finding]:
    part, sigma = float(lens.values[READOUT]), float(lens.sigma[READOUT])
    seconds = part / camera.fps + camera.readout_s
    if not _READOUT <= abs(part) <= _LONGEST_READOUT or seconds <= 0:
        return
    yield Finding(
        "camera",
        "rolling_shutter",
        "note",
        f"the shutter seems to roll: rows are read in {1e3 * seconds:.0f} ms "
        f"(± {1e3 * sigma / camera.fps:.0f} ms)",
        f"{1e3 * camera.readout_s:.0f} ms (readout_s)",
        f"try readout_s: {seconds:.3f} in the calibration",
        seconds,
    )


def _centre(lens: Lens, camera: Camera) -> Iterator[Finding]:
    shift = lens.values[[CENTRE_X, CENTRE_Y]] * camera.width
    if float(np.abs(shift).max()) < _CENTRE * camera.width:
        return
    x, y = camera.cx + float(shift[0]), camera.cy + float(shift[1])
    yield Finding(
        "camera",
        "principal_point",
        "warning",
        f"the principal point seems to be near ({x:.0f}, {y:.0f}), not at "
        f"({camera.cx:.0f}, {camera.cy:.0f})",
        f"within {_CENTRE * camera.width:.0f} px",
        "are cx and cy exchanged, or of images of another size or crop?",
        float(np.abs(shift).max()),
    )

"""Write a self-calibration as a calibration file, and as lines for people."""

from __future__ import annotations

from spslam.calibrate.self_calibration import SelfCalibration

# Digits of the numbers in the file after the point: pixels, coefficients.
_PIXELS, _COEFFICIENTS = 4, 7


def describe(found: SelfCalibration) -> list[str]:
    """Return lines with the result, its standard deviations, and what speaks against it."""
    camera, sigmas = found.camera, found.sigmas
    across, down = found.field_of_view_deg
    lines = [
        f"focal length {camera.fx:.1f} ± {sigmas['f']:.1f} px: field of view "
        f"{across:.1f} x {down:.1f} degrees",
        f"principal point {camera.cx:.1f} ± {sigmas['cx']:.1f}, "
        f"{camera.cy:.1f} ± {sigmas['cy']:.1f} px",
        _lens(found),
        f"{found.registered} of {found.images} images registered "
        f"({100 * found.registered / found.images:.0f} %), {found.points} points, median residual "
        f"{found.residual_px:.2f} px, parallax {found.parallax_deg:.1f} degrees",
    ]
    if not found.fps_known:
        lines.append(f"frame rate not known: {camera.fps:g}/s is assumed")
    return [*lines, *(f"do not trust: {doubt}" for doubt in found.doubts)]


def summary(found: SelfCalibration) -> str:
    """Return one line with the result."""
    across, _ = found.field_of_view_deg
    text = (
        f"focal length {found.camera.fx:.1f} ± {found.sigmas['f']:.1f} px (field of view "
        f"{across:.0f}°), {_lens(found)}, {found.registered} of {found.images} images registered"
    )
    return text + "".join(f"; do not trust: {doubt}" for doubt in found.doubts)


def calibration_text(found: SelfCalibration, recording: str) -> str:
    """Return the content of a calibration file with the result as comments.

    Args:
        found: the result.
        recording: name of the recording.
    """
    camera = found.camera
    comments = [f"Self-calibration of {recording} by spslam calibrate.", *describe(found)]
    coefficients = ", ".join(f"{value:.{_COEFFICIENTS}f}" for value in camera.distortion)
    lines = [
        *(f"# {' '.join(line.split())}" for line in comments),
        f"width: {camera.width}",
        f"height: {camera.height}",
        *(f"{key}: {getattr(camera, key):.{_PIXELS}f}" for key in ("fx", "fy", "cx", "cy")),
        f"fps: {camera.fps:.6g}",
        "distortion:",
        f"  model: {camera.distortion_model}",
        f"  coefficients: [{coefficients}]",
    ]
    return "\n".join(lines) + "\n"


def _lens(found: SelfCalibration) -> str:
    k1, k2 = (*found.camera.distortion, 0.0, 0.0)[:2]
    return (
        f"distortion k1 {k1:.4f} ± {found.sigmas['k1']:.4f}, k2 {k2:.4f} ± {found.sigmas['k2']:.4f}"
    )

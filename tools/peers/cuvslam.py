"""Run cuVSLAM's odometry on the CPU (wheel `dim-odom`) for `spslam bench peers`.

    python cuvslam.py SEQUENCE kitti stereo CAMERA.json OUT.tum [--realtime]

Stereo pairs, rectified. It has no map and closes no loops. In its own environment.
"""

from __future__ import annotations

import json
import time

import dim_odom
from frames import Report, arguments, play, read_recording, write_trajectory

# Stamps must be positive: added to them, nanoseconds.
_FIRST_NS = 1_000_000_000


def main() -> None:
    """Run the odometry; write the trajectory and print the report."""
    given = arguments("Run cuVSLAM's odometry on stereo pairs.").parse_args()
    if given.sensor != "stereo":
        raise SystemExit(f"this driver is for stereo, found {given.sensor}")
    camera = json.loads(given.calibration.read_text())
    K = [camera["fx"], 0.0, camera["cx"], 0.0, camera["fy"], camera["cy"], 0.0, 0.0, 1.0]
    width, height = camera["width"], camera["height"]
    # x of each camera in the frame of the left one, metres; both look the same way.
    x = {"left": 0.0, "right": camera["baseline_m"], "base_link": 0.0}
    tracker = dim_odom.CuvslamOdometry(
        {"camera_mode": "stereo", "use_gpu": False},
        tf=lambda parent, child: ((x[child] - x[parent], 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
    )
    recording = read_recording(given.sequence, given.layout, given.sensor)
    stamps, rows, report = [], [], Report(recording, given.realtime)
    first = recording.stamps[0] if recording.stamps else 0.0
    for number, frame in enumerate(play(recording, given.sensor, given.realtime)):
        ns = _FIRST_NS + round((frame.stamp - first) * 1e9)
        pair = {"left": frame.image, "right": frame.second}
        if number == 0:
            for name in pair:
                tracker.handle_camera_info(
                    dim_odom.CameraModel(ns, name, width, height, [0.0] * 5, K)
                )
        begin, estimate = time.perf_counter(), None
        for name, image in pair.items():
            found = tracker.handle_image(
                dim_odom.ImageFrame(ns, name, width, height, "mono8", width, image.tobytes())
            )
            estimate = found or estimate
        report.add(frame, begin, estimate is not None)
        if estimate is not None:
            stamps.append(frame.stamp)
            rows.append([*estimate.translation, *estimate.rotation_xyzw])
    write_trajectory(given.out, stamps, rows)
    report.show()


if __name__ == "__main__":
    main()

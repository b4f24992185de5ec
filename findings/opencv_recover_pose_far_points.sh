#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.recoverPose(E, points1, points2, K): the pose of an essential
# matrix, out of four possible ones, with most points in front of both cameras.
# Behaviour: points farther away than 50 baselines do not count (distanceThresh of the other form of the function, which
# the documentation of this form does not mention). Between neighbouring images of a video most points are farther. With
# none left the first of the four poses is returned: here with a rotation that is wrong by 180 degrees.
# Seen, exact points at 9 to 14 m:
#   baseline 0.64 m: 300 of 300 points count, rotation off by 0 degrees
#   baseline 0.11 m: 0 of 300 points count, rotation off by 180 degrees
#   baseline 0.11 m, distanceThresh=1e+06: 300 of 300 points count, rotation off by 0 degrees
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import cv2
import numpy as np

rng = np.random.default_rng(0)
K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]
found = []
for t, more in (((0.6, 0.12, 0.18), {}), ((0.1, 0.02, 0.03), {}), ((0.1, 0.02, 0.03), {"distanceThresh": 1e6})):
    points = np.c_[rng.uniform(-6, 6, 300), rng.uniform(-4, 4, 300), rng.uniform(9, 14, 300)]
    first, second = ((seen @ K.T)[:, :2] / seen[:, 2:] for seen in (points, points @ R.T + t))
    cv2.setRNGSeed(0)
    E, mask = cv2.findEssentialMat(first, second, K, cv2.RANSAC, 0.999, 0.5)
    count, turned, *_ = cv2.recoverPose(E, first, second, K, mask=mask, **more)
    off = np.degrees(np.arccos(np.clip((np.trace(turned @ R.T) - 1) / 2, -1, 1)))
    name = ", ".join([f"baseline {np.linalg.norm(t):.2f} m", *(f"{key}={value:g}" for key, value in more.items())])
    print(f"{name}: {count} of 300 points count, rotation off by {off:.0f} degrees")
    found.append((count, round(off)))
if found != [(300, 0), (0, 180), (300, 0)]:
    sys.exit("changed")
EOF

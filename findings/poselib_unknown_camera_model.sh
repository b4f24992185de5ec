#!/usr/bin/env bash
# PoseLib 2.0.5 (poselib), estimate_absolute_pose with 100 exact correspondences.
# Behaviour: a camera model whose name it does not know ("pinhole" in lower case, or a model of another program) is no
# error. What returns is the pose that no estimate was made of, the identity, with 0 inliers: it looks like data that
# fit no pose. (Do not read the mask of inliers then: it is not filled in.)
# Seen:
#   PINHOLE: 100 inliers, off by 0.000 m
#   pinhole: 0 inliers, off by 5.000 m
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 poselib==2.0.5
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import numpy as np
import poselib

rng = np.random.default_rng(0)
translation = np.array([0.0, 0.0, 5.0])
points = rng.uniform(-1, 1, (100, 3))
seen = points + translation
pixels = 500 * seen[:, :2] / seen[:, 2:] + [320, 240]
found = {}
for model in ("PINHOLE", "pinhole"):
    camera = {"model": model, "width": 640, "height": 480, "params": [500, 500, 320, 240]}
    pose, info = poselib.estimate_absolute_pose(pixels, points, camera, {"max_reproj_error": 2.0}, {})
    off = float(np.linalg.norm(np.asarray(pose.t) - translation))
    found[model] = info["num_inliers"], round(off, 3)
    print(f"{model}: {found[model][0]} inliers, off by {off:.3f} m")
if found != {"PINHOLE": (100, 0.0), "pinhole": (0, 5.0)}:
    sys.exit("changed")
EOF

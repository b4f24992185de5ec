#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.SIFT_create(N), which is to keep the best N keypoints.
# Behaviour: it keeps the N-th best and all that have its response, so that there may be more than N, in ordinary
# pictures as well: the keypoints of several orientations at one place have one response.
# Seen:
#   smooth noise, 10 asked: 10 found; 1 have the response of the last one
#   smooth noise, 50 asked: 51 found; 2 have the response of the last one
#   chess board, 50 asked: 52 found; 8 have the response of the last one
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

noise = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
noise = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
board = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((30, 30))).astype(np.uint8) * 255
found = []
for name, image, count in (("smooth noise", noise, 10), ("smooth noise", noise, 50), ("chess board", board, 50)):
    responses = [point.response for point in cv2.SIFT_create(count).detect(image)]
    ties = responses.count(min(responses))
    print(f"{name}, {count} asked: {len(responses)} found; {ties} have the response of the last one")
    found.append((len(responses) - count, len(responses) - ties < count))
if found[0][0] != 0 or min(found[1][0], found[2][0]) < 1 or not all(tie for _, tie in found):
    sys.exit("changed")
EOF

#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93) in Python, detectAndCompute(image, mask, useProvidedKeypoints=True).
# Behaviour: in Python the keypoints are only returned, there is no argument to provide them. With the flag nothing is
# found, and the descriptors are None, without an error. compute(image, keypoints) is what describes given keypoints.
# Seen, a picture of smooth noise:
#   SIFT: without the flag 1640, with it 0 and None, compute 1640
#   ORB: without the flag 477, with it 0 and None, compute 477
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
image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
changed = False
for name, extractor in (("SIFT", cv2.SIFT_create()), ("ORB", cv2.ORB_create())):
    keypoints = extractor.detect(image, None)
    provided, descriptors = extractor.detectAndCompute(image, None, useProvidedKeypoints=True)
    described = len(extractor.compute(image, keypoints)[0])
    print(
        f"{name}: without the flag {len(keypoints)}, with it {len(provided)} and {descriptors}, "
        f"compute {described}"
    )
    changed |= len(keypoints) < 100 or described < 100 or len(provided) > 0 or descriptors is not None
if changed:
    sys.exit("changed")
EOF

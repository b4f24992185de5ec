#!/usr/bin/env bash
# pycolmap 4.2.1, Database.write_matches and write_two_view_geometry with ids of images that are not in the database.
# Behaviour: both write without a word, and the matches are counted and read back. write_keypoints and write_descriptors
# refuse such an id. Ids that are off by one, or those of another database, are therefore not noticed where they are
# written.
# Seen, in a database without images:
#   write_keypoints: RuntimeError
#   write_descriptors: RuntimeError
#   write_matches: written
#   write_two_view_geometry: written
#   images 0, matches 2, inlier matches 2; image 17 exists: False, matches of 17 and 23 exist: True
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pycolmap==4.2.1
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import numpy as np
import pycolmap

matches = np.array([[0, 0], [1, 1]], np.uint32)
geometry = pycolmap.TwoViewGeometry()
geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
geometry.inlier_matches = matches
descriptors = pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, np.ones((2, 128), np.uint8))
database = pycolmap.Database.open("matches.db")
words = []
for name, values in (
    ("write_keypoints", (17, np.ones((2, 2), np.float32))),
    ("write_descriptors", (17, descriptors)),
    ("write_matches", (17, 23, matches)),
    ("write_two_view_geometry", (17, 23, geometry)),
):
    try:
        getattr(database, name)(*values)
        words.append("written")
    except RuntimeError:
        words.append("RuntimeError")
    print(f"{name}: {words[-1]}")
counts = [database.num_images(), database.num_matches(), database.num_inlier_matches()]
there = [database.exists_image(17), database.exists_matches(17, 23)]
print("images {}, matches {}, inlier matches {}; ".format(*counts), end="")
print("image 17 exists: {}, matches of 17 and 23 exist: {}".format(*there))
database.close()
expected = ["RuntimeError", "RuntimeError", "written", "written"]
if (words, counts, there) != (expected, [0, 2, 2], [False, True]):
    sys.exit("changed")
EOF

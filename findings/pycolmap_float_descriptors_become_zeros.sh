#!/usr/bin/env bash
# pycolmap 4.2.1, FeatureDescriptors of a learned extractor's type (ALIKED_N16ROT) with float32 descriptors of length 1.
# Behaviour: they are cast to uint8 without a word, and all numbers of a unit vector are below 1: what is stored is
# zeros, of the right shape and type, and every pair matches equally well. FeatureDescriptorsFloat keeps them.
# Seen:
#   FeatureDescriptors: uint8 (3, 128), 0 of 384 numbers are not zero
#   FeatureDescriptorsFloat: float32 (3, 128), 384 of 384 numbers are not zero
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

descriptors = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
counts = []
for kind in (pycolmap.FeatureDescriptors, pycolmap.FeatureDescriptorsFloat):
    stored = np.asarray(kind(pycolmap.FeatureExtractorType.ALIKED_N16ROT, descriptors).data)
    counts.append(int(np.count_nonzero(stored)))
    text = f"{counts[-1]} of {stored.size} numbers are not zero"
    print(f"{kind.__name__}: {stored.dtype} {stored.shape}, {text}")
if counts != [0, descriptors.size]:
    sys.exit("changed")
EOF

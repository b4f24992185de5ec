#!/usr/bin/env bash
# rosbags-image 0.10.4 (rosbags 0.11.9), message_to_cvimage, a sensor_msgs/msg/Image whose rows are padded.
# Behaviour: `step`, the length of a row in bytes, is not looked at. Of an image 6 pixels wide with a step of 8 (drivers
# align rows) the padding becomes pixels, each row begins two pixels later than the last, and the last rows are lost.
# No error is raised.
# Seen, the message's rows count up from 0, its padding is 255:
#   [0, 1, 2, 3, 4, 5]
#   [255, 255, 6, 7, 8, 9]
#   [10, 11, 255, 255, 12, 13]
#   [14, 15, 16, 17, 255, 255]
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 opencv-python-headless==5.0.0.93 rosbags==0.11.9 rosbags-image==0.10.4
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import numpy as np
from rosbags.image import message_to_cvimage
from rosbags.typesys import Stores, get_typestore

HEIGHT, WIDTH, STEP = 4, 6, 8
types = get_typestore(Stores.ROS2_HUMBLE).types
right = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
rows = np.full((HEIGHT, STEP), 255, np.uint8)
rows[:, :WIDTH] = right
stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
message = types["sensor_msgs/msg/Image"](
    header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
    height=HEIGHT,
    width=WIDTH,
    encoding="mono8",
    is_bigendian=0,
    step=STEP,
    data=rows.reshape(-1),
)
found = np.asarray(message_to_cvimage(message))
for row in found.tolist():
    print(row)
if not np.array_equal(found, rows.reshape(-1)[: right.size].reshape(right.shape)):
    sys.exit("changed")
EOF

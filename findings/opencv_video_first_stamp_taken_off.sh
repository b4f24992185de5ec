#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.VideoCapture with its FFmpeg, a Matroska file of 40 JPEG pictures
# at 20 a second, the first of them 1.4 s after the beginning of the file (a part cut out of a longer recording).
# Behaviour: CAP_PROP_FRAME_COUNT counts the time before the first picture, too (the file's duration times its rate); and
# CAP_PROP_POS_MSEC is 0 at the first picture, not 1400: stamps of two files of one clock do not belong together.
# Seen: 68 pictures announced, 40 read, at 0 to 1950 ms.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'EOF'
import struct
import sys

import cv2
import numpy as np


def element(identity, data):
    """An EBML element (RFC 8794) with a size of eight bytes."""
    return bytes.fromhex(identity) + (len(data) | 1 << 56).to_bytes(8, "big") + data


def number(value):
    return value.to_bytes(max((value.bit_length() + 7) // 8, 1), "big")


stamps = [1400 + 50 * i for i in range(40)]  # milliseconds
picture = np.random.default_rng(0).integers(0, 255, (48, 64)).astype(np.uint8)
jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
info = element("2AD7B1", number(1_000_000)) + element("4489", struct.pack(">d", stamps[-1] + 50.0))
video = element("B0", number(64)) + element("BA", number(48))
track = element("D7", b"\x01") + element("73C5", b"\x01") + element("83", b"\x01") + element("86", b"V_MJPEG")
track += element("23E383", number(50_000_000)) + element("E0", video)
body = element("1549A966", info) + element("1654AE6B", element("AE", track))
for stamp in stamps:
    body += element("1F43B675", element("E7", number(stamp)) + element("A3", b"\x81\x00\x00\x80" + jpeg))
head = element("4282", b"matroska") + element("4287", b"\x04") + element("4285", b"\x02")
with open("walk.mkv", "wb") as file:
    file.write(element("1A45DFA3", head) + element("18538067", body))

capture = cv2.VideoCapture("walk.mkv")
announced = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
times = []
while capture.read()[0]:
    times.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
print(f"announced {announced}, read {len(times)}, stamps {times[0]} to {times[-1]} ms")
if announced <= len(times) or len(times) != 40 or times[0] != 0 or times[-1] != stamps[-1] - stamps[0]:
    sys.exit("changed")
EOF

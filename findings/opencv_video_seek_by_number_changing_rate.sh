#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.VideoCapture with its FFmpeg, a Matroska file of 80 JPEG pictures:
# the first 40 at 20 a second, the others at 10 a second.
# Behaviour: after CAP_PROP_POS_FRAMES was set to N the property says N, and read() gives another picture. Read from the
# start, pictures and their CAP_PROP_POS_MSEC are right.
# Seen: asked for picture 65, the property says 65, got picture 61.
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


stamps = [*(50 * i for i in range(40)), *(2000 + 100 * i for i in range(40))]  # milliseconds
# Each picture says its number in two grey levels, left and right.
pictures = [np.hstack([np.full((48, 32), 20 + 20 * (i // 10)), np.full((48, 32), 20 + 20 * (i % 10))]) for i in range(80)]
info = element("2AD7B1", number(1_000_000)) + element("4489", struct.pack(">d", 6000.0))
video = element("B0", number(64)) + element("BA", number(48))
track = element("D7", b"\x01") + element("73C5", b"\x01") + element("83", b"\x01") + element("86", b"V_MJPEG")
body = element("1549A966", info) + element("1654AE6B", element("AE", track + element("E0", video)))
for stamp, picture in zip(stamps, pictures):
    jpeg = cv2.imencode(".jpg", picture.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    body += element("1F43B675", element("E7", number(stamp)) + element("A3", b"\x81\x00\x00\x80" + jpeg))
head = element("4282", b"matroska") + element("4287", b"\x04") + element("4285", b"\x02")
with open("walk.mkv", "wb") as file:
    file.write(element("1A45DFA3", head) + element("18538067", body))


def seen(image):
    tens, ones = image[:, 4:28].mean(), image[:, 36:60].mean()
    return 10 * round((tens - 20) / 20) + round((ones - 20) / 20)


capture = cv2.VideoCapture("walk.mkv")
read = []
while True:
    ok, image = capture.read()
    if not ok:
        break
    read.append((seen(image), round(capture.get(cv2.CAP_PROP_POS_MSEC))))
capture = cv2.VideoCapture("walk.mkv")
capture.set(cv2.CAP_PROP_POS_FRAMES, 65)
says = capture.get(cv2.CAP_PROP_POS_FRAMES)
got = seen(capture.read()[1])
print("from the start right:", read == list(enumerate(stamps)))
print(f"rate {capture.get(cv2.CAP_PROP_FPS):.2f}, asked for 65, says {says:.0f}, got {got}")
if read != list(enumerate(stamps)) or says != 65 or got == 65:
    sys.exit("changed")
EOF

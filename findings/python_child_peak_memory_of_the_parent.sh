#!/usr/bin/env bash
# Python's subprocess and os.wait4 (CPython 3.11 on Linux 6.18): the largest resident memory of a child, ru_maxrss.
# Behaviour: it begins with that of the process that started the child, because the child is born with the parent's
# memory (vfork) and exec keeps the peak. A child of 1 MB whose parent holds 300 MB is said to have used 300 MB.
# VmHWM of /proc/PID/status begins anew at exec, but is gone with the process.
# Seen, MB of /bin/true by ru_maxrss: parent small 11, parent with 300 MB 297.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
python3 - <<'EOF'
import os
import subprocess
import sys


def peak_mb():
    child = subprocess.Popen(["/bin/true"])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = status
    return used.ru_maxrss / 1024


small = peak_mb()
block = b"x" * 300_000_000
large = peak_mb()
print(f"/bin/true by ru_maxrss: {small:.0f} MB from a small parent, {large:.0f} MB from one with 300 MB")
sys.exit(0 if small < 100 and large > 250 else 1)
EOF

#!/usr/bin/env bash
# pycolmap 4.2.1 is imported in a Python program that handles SIGTERM.
# Behaviour: the import installs a handler of its own (that of its logging library, glog). At SIGTERM the process prints
# "*** Aborted" with a stack trace and ends at once; the Python handler, which signal.getsignal still returns, is not
# called, so that nothing is cleaned up. Calling signal.signal again after the import puts it right.
# Seen:
#   before the import: handled 1; after it: handled 0, ended by signal 15, "*** Aborted at" printed; set again: handled 1
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pycolmap==4.2.1
cd "$folder"
cat > child.py <<'EOF'
import os
import signal
import sys

signal.signal(signal.SIGTERM, lambda number, frame: print("handled", flush=True))
if "import" in sys.argv:
    import pycolmap  # noqa: F401
if "again" in sys.argv:
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
os.kill(os.getpid(), signal.SIGTERM)
EOF
venv/bin/python - <<'EOF'
import subprocess
import sys


def child(*arguments):
    return subprocess.run([sys.executable, "child.py", *arguments], capture_output=True, text=True)


before, after, again = child(), child("import"), child("import", "again")
handled = [done.stdout.count("handled") for done in (before, after, again)]
aborted = "*** Aborted at" in after.stderr
print(
    f"before the import: handled {handled[0]}; after it: handled {handled[1]}, ended by signal {-after.returncode}, "
    f"\"*** Aborted at\" {'printed' if aborted else 'not printed'}; set again: handled {handled[2]}"
)
if handled != [1, 0, 1] or after.returncode != -15 or not aborted:
    sys.exit("changed")
EOF

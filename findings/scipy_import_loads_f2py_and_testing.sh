#!/usr/bin/env bash
# SciPy 1.17.1 with NumPy 2.4.6: importing scipy.spatial also imports numpy.f2py and numpy.testing.
# Behaviour: NumPy loads both lazily, because programs do not need the Fortran wrapper generator or the test tools.
# scipy._lib.array_api_compat.numpy says `from numpy import *`, and NumPy's `__all__` names the lazy modules, so the
# star import loads them (with unittest and, where installed, charset_normalizer). Every program that uses SciPy pays.
# Seen:
#   after import numpy:         numpy.f2py no, numpy.testing no
#   after import scipy.spatial: numpy.f2py yes, numpy.testing yes
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1
cd "$folder"
venv/bin/python - <<'EOF'
import sys


def loaded():
    return ["yes" if name in sys.modules else "no" for name in ("numpy.f2py", "numpy.testing")]


import numpy  # noqa: E402, F401

before = loaded()
import scipy.spatial  # noqa: E402, F401

after = loaded()
print("after import numpy:         numpy.f2py {}, numpy.testing {}".format(*before))
print("after import scipy.spatial: numpy.f2py {}, numpy.testing {}".format(*after))
sys.exit(0 if (before, after) == (["no", "no"], ["yes", "yes"]) else 1)
EOF

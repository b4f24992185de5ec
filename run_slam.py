"""Run `spslam run PATH …` as `python run_slam.py PATH …`."""

import sys

from spslam.__main__ import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])

"""`python run_slam.py PATH …` is `spslam run PATH …`."""

import sys

from spslam.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])

"""`python -m spslam`, and under torchrun `-m spslam`, is `spslam`."""

from spslam.cli import main

if __name__ == "__main__":
    main()

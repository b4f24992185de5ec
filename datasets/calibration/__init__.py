"""Read calibration files and rectify stereo pairs."""

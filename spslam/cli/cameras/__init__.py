"""Commands about cameras: calibrate, calibration, check."""

"""The commands `spslam run` and `spslam demo`."""

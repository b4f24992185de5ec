"""The command `spslam bench peers`."""

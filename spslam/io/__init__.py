"""Files: reading and writing them whole, with checks; trajectories as text."""

"""Files: atomic writing, checked reading, trajectories as text."""

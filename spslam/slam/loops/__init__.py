"""Loop closing: detection, verification, correction, and merging of maps."""

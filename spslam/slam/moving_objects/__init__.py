"""Points that move by themselves or with the camera, and do not belong in the map."""

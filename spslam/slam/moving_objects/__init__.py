"""What moves by itself, or with the camera, and is no part of the map."""

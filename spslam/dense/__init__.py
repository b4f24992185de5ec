"""Dense geometry of a finished run: coloured points and meshes."""

"""Cameras: sources of frames, what is wrong with them, and who is connected."""

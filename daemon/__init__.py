"""The daemon: supervisor, workers and everything that touches a device or a dataset."""

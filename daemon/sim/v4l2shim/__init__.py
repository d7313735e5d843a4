"""A simulated V4L2 camera: a preload library and the scripted device behind it.

Programs started with `environment(...)` see the device under its path and use it unchanged, OpenCV
included. Needs a C compiler once; no kernel module, no privilege.
"""

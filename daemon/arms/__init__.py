"""Arms: servo buses, calibration, limits, the motion machine and the control loop of each bus."""

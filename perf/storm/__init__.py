"""Faults drawn at random against the real daemon with the simulated robot, and what they cost."""

"""Clients of the control plane: the Python client class and the recctl command line."""

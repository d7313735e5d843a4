"""recctl: the command line of the control plane and of the offline tools."""

"""Put in front of a daemon's PYTHONPATH by `recd.perf ticks`; holds nothing else."""

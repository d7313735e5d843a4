"""Put in front of a daemon's Python path by `recd.perf imports`."""

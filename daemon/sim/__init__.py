"""The simulated robot: servo buses and cameras that speak as the real devices do, on the wire."""

"""Configuration models, presets and the wire contract that both sides of a socket share."""

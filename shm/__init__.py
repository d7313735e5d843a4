"""Shared memory: sealed segments, rings of samples, latest-value cells, doorbells."""

"""The writer process: collects joints and row records, builds each episode and commits it."""

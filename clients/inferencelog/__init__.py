"""Inference logs: what a policy was shown, what it answered, what the arms did, as CSV files."""

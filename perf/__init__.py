"""Measurements: grids, floors, budgets. Time limits live here, never in tests."""

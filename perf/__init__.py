"""Measures recd on this machine: what was kept first, then waits, cost, truth in time, floors.

Reads what a recording left behind and what the kernel counts; the daemon under test is not changed
and does not know. Timing limits live here (budgets.toml), never in tests.
"""

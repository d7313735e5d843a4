"""What policies are measured by: a real daemon, a real client in a process of its own, side files.

`bench` runs it; `figures` finds the figures in what was recorded.
"""

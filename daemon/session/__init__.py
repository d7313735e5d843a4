"""Decisions of a recording session: states, plan, verdicts. All pure: time is passed in."""

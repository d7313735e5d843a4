"""Policies: their chunks checked, who may send them, and how one is played at the control rate.

`chunk`, `leases`, `playback`: decisions without I/O. `seat`: the policy's place in an arm process.
`gateway`: the process that policies talk to. docs/policy_api.md.
"""

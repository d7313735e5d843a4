"""Adapters: processes that ask a foreign policy server and drive by its answers.

An adapter is an ordinary client of the policy API. `wire` is what a protocol has to give,
`profile` which camera and joint has which name there, `drive` the loop. docs/policy_adapters.md.
"""

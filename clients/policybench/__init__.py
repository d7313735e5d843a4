"""Policy servers of a known behaviour, one per protocol, with delays and faults on demand.

`script` is what they answer, `faults` what can go wrong; the other modules speak a protocol each.
For trying out a robot before there is a policy, and for the tests. docs/policy_adapters.md.
"""

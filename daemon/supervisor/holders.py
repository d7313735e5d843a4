"""Who held a lease while an episode ran, for its manifest. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

FACTS = ("holder", "kind", "key", "adapter", "model", "epoch")
"""What makes two holders two entries."""

NEWEST = ("clock",)
"""What is measured again and again: of each holder the last word, none where it says none."""


def with_holders(
    noted: Sequence[Mapping[str, Any]], leases: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The entries so far and those of `leases` (pair -> as the gateway describes it), brought up to
    date. An entry that is there stays where it is."""
    entries = [dict(entry) for entry in noted]
    for pair, lease in leases.items():
        if lease["kind"] == "nobody":
            continue
        told = {"pair": pair, **{name: lease.get(name) for name in FACTS}}
        entry = next((one for one in entries if told.items() <= one.items()), None)
        if entry is None:
            entries.append(entry := told)
        entry |= {name: lease[name] for name in NEWEST if name in lease}
    return entries

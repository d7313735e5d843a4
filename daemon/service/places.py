"""Where the parts of a service are installed. Everything below one prefix, `/` on a live system."""

from dataclasses import dataclass
from pathlib import Path

STATE_HOME = Path("/var/lib/recd")
"""Home of the service's own account, and a good place for datasets of several people."""

SERVICE_ACCOUNT = "recd"
"""The only account that is made when it is missing; any other name must exist."""


@dataclass(frozen=True, slots=True)
class Places:
    """prefix: where the root folder of the system is; `/` unless an image is being built."""

    prefix: Path = Path("/")

    @property
    def live(self) -> bool:
        """Whether this is the running system, so that its managers have to be told."""
        return self.prefix == Path("/")

    def at(self, path: str | Path) -> Path:
        """`path` of the system, below the prefix."""
        return self.prefix / Path(path).relative_to("/")

    def unit(self, instance: str, *, several: bool) -> "UnitPlaces":
        """Files of the service of one robot. several: `recd@NAME.service` beside others."""
        unit = f"recd@{instance}.service" if several else "recd.service"
        file = "recd@.service" if several else "recd.service"
        systemd = self.at("/etc/systemd/system")
        return UnitPlaces(
            unit=unit,
            file=systemd / file,
            drop_in=systemd / f"{unit}.d" / "robot.conf",
            config=self.at(f"/etc/recd/{instance}.yaml"),
            sysusers=self.at("/etc/sysusers.d/recd.conf"),
            tmpfiles=self.at("/etc/tmpfiles.d/recd.conf"),
            rules=self.at("/etc/udev/rules.d/70-recd.rules"),
            plug_rules=self.at(f"/etc/udev/rules.d/71-recd-{instance}.rules"),
            needrestart=self.at("/etc/needrestart/conf.d/recd.conf"),
            ledger=self.ledgers / f"{unit}.json",
        )

    @property
    def ledgers(self) -> Path:
        """Folder of the lists of what was installed, one per unit."""
        return self.at("/etc/recd/.installed")


@dataclass(frozen=True, slots=True)
class UnitPlaces:
    """Where each file of one service goes."""

    unit: str
    file: Path
    drop_in: Path
    config: Path
    sysusers: Path
    tmpfiles: Path
    rules: Path
    plug_rules: Path
    needrestart: Path
    ledger: Path

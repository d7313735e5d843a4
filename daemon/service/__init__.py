"""recd as a service of systemd: what is installed where, for whom, and what follows its death."""

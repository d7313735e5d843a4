"""Start of one hook: asks the kernel to end it with the daemon, then becomes the user's command."""

import os
import sys

from recd.daemon.realtime import die_with_parent


def main() -> None:
    """`python -m recd.daemon.supervisor.hook COMMAND`; does not return."""
    die_with_parent()
    os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])


if __name__ == "__main__":
    main()

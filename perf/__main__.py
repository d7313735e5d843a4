"""`python -m recd.perf`."""

import sys

from recd.perf.cli import main

sys.exit(main())

"""`python -m lmdyn` is the command `lmdyn`."""

import sys

from lmdyn.cli import main

sys.exit(main())

"""`python -m fasttrain ...` is the command `fasttrain ...`."""

import sys

from fasttrain.cli import main

sys.exit(main())

"""`python -m dreamtime`."""

import sys

from dreamtime.cli import main

sys.exit(main())

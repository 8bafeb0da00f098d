"""`python -m dreamtime`."""

import sys

try:
    from dreamtime.cli import main
except KeyboardInterrupt:
    sys.stderr.write("dreamtime: interrupted.\n")
    sys.exit(130)

sys.exit(main())

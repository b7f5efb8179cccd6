"""`python -m nnref` is the command `nnref`."""

import sys

from nnref.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m oncue`: the command `oncue`."""

import sys

from oncue.cli import main

if __name__ == "__main__":
    sys.exit(main())

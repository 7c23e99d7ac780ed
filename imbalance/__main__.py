"""`python -m imbalance`, the same as `imbalance`."""

import sys

from imbalance.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

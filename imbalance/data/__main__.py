"""`imbalance data …`, the same as `imbalance data …`."""

import sys

from imbalance.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", *sys.argv[1:]]))

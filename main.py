"""Train and evaluate one config: `python main.py --config=configs/digits_poly.py --config.optim.lr=0.05`.

This is `imbalance train`, for a clone of the repository that is not installed. Exit status: 0 done, 2 bad usage, config
or data, 3 non-finite loss, 130/143 interrupted with a checkpoint written. The last line on stdout is one JSON object:
run directory, status and score. `--config=<run directory>/config.json` runs a saved config again.
"""

import sys

from imbalance.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

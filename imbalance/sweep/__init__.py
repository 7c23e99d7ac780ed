"""Train many runs over configs, grids and seeds, on one machine or a cluster, and compare them."""

"""Where linear models go in the limit, computed without training them."""

"""Methods: samplers, weights, mixing, losses, objectives, inference of groups, and heads."""

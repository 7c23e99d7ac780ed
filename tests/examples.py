"""Examples: a valid config section for every entry of a table, for the tests that go over all entries."""

# A config section for each loss, with hyperparameters that all act.
EXAMPLES = {
    "cross_entropy": dict(),
    "poly": dict(alpha=1.5, left="exponential"),
    "vs": dict(gamma=0.3, tau=1.2),
    "vs_group": dict(gamma=0.3, tau=1.2),
    "cdt": dict(gamma=0.4),
    "logit_adjusted": dict(tau=1.2),
    "balanced_softmax": dict(),
    "ldam": dict(max_margin=0.5, scale=3.0),
    "focal": dict(gamma=1.5),
    "class_balanced": dict(beta=0.99, gamma=0.5),
    "class_balanced_sigmoid": dict(beta=0.99, gamma=0.5),
}

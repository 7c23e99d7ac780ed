"""A new head for features that stay as they are, where the classes of the evaluation are not those of training."""

import torch
from torch import Tensor, nn


def fit_head(features: Tensor, targets: Tensor, strength: float) -> nn.Linear:
    """A new head for features that stay as they are: logistic regression with an L2 penalty.

    The features are standardised for the fit, since the penalty would otherwise depend on their scale, and the head
    takes that back into its weights.

    Args:
        features: (N, D).
        targets: (N,), 0 to K - 1.
        strength: the inverse of the penalty, scikit-learn's C.

    Returns:
        A layer from D to K, on the features' device and of their type.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = features.double()
    mean, std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    fit = LogisticRegression(C=strength, max_iter=1000)
    fit.fit(((inputs - mean) / std).cpu().numpy(), targets.cpu().numpy())
    weight, bias = (torch.from_numpy(value).to(mean) for value in (fit.coef_, fit.intercept_))
    if len(weight) == 1:  # of two classes scikit-learn gives the second's logit, the first's being 0
        weight, bias = (torch.cat([torch.zeros_like(value), value]) for value in (weight, bias))
    head = nn.Linear(weight.shape[1], len(weight)).to(features)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
    return head

"""Linear probe: a new head on unchanged features, for data whose evaluated classes differ from those of training."""

import torch
from torch import Tensor, nn


def fit_head(features: Tensor, targets: Tensor, strength: float) -> nn.Linear:
    """Fit a new head on unchanged features: logistic regression with an L2 penalty.

    The features are standardised for the fit, because the penalty would otherwise depend on their scale. The returned
    layer includes the standardisation.

    Args:
        features: (N, D).
        targets: (N,), 0 to K - 1.
        strength: one over the penalty, C of scikit-learn.

    Returns:
        A layer from D to K, on the device and with the type of the features.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = features.double()
    mean, std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    fit = LogisticRegression(C=strength, max_iter=1000)
    fit.fit(((inputs - mean) / std).cpu().numpy(), targets.cpu().numpy())
    weight, bias = (torch.from_numpy(value).to(mean) for value in (fit.coef_, fit.intercept_))
    if len(weight) == 1:  # two classes: scikit-learn has the logit of the second, the first is 0
        weight, bias = (torch.cat([torch.zeros_like(value), value]) for value in (weight, bias))
    head = nn.Linear(weight.shape[1], len(weight)).to(features)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
    return head

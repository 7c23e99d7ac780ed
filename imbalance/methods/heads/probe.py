"""Linear probe: a new head on unchanged features, for data sets that evaluate other classes than those of training."""

import torch
from torch import Tensor, nn


def fit_head(features: Tensor, targets: Tensor, strength: float) -> nn.Linear:
    """Fit a new head to features by logistic regression with an L2 penalty.

    The features are standardised for the fit, because the penalty would otherwise depend on their scale. The returned
    layer takes the features before standardisation.

    Args:
        features: (N, D).
        targets: (N,), 0 to K − 1.
        strength: C of scikit-learn, one over the factor of the penalty.

    Returns:
        A layer from D features to K logits, with the device and type of `features`.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = features.double()
    mean, std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    fit = LogisticRegression(C=strength, max_iter=1000)
    fit.fit(((inputs - mean) / std).cpu().numpy(), targets.cpu().numpy())
    weight, bias = (torch.from_numpy(value).to(mean) for value in (fit.coef_, fit.intercept_))
    if len(weight) == 1:  # for two classes scikit-learn fits the logit of the second, and that of the first is 0
        weight, bias = (torch.cat([torch.zeros_like(value), value]) for value in (weight, bias))
    head = nn.Linear(weight.shape[1], len(weight)).to(features)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
    return head

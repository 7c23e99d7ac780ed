"""V-REx: values and gradients of the published formula, and its warm-up."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from imbalance.methods.objectives.vrex import RiskExtrapolation

# Seven examples in three environments. The values and gradients of the penalties 1 and 10 were computed in NumPy from the
# formula in DomainBed's code, and the gradients checked by central differences.
LOGITS = [
    [1.072, 0.9766, 1.0519],
    [-1.4101, -0.2475, -0.5457],
    [0.0543, 0.1062, 1.1261],
    [0.7522, -0.8289, 0.9015],
    [1.6261, 0.3064, -1.5056],
    [-0.6447, -0.1795, -1.6234],
    [-0.1383, -1.2727, 0.7926],
]
LABELS = [0, 1, 2, 0, 1, 1, 2]
ENVIRONMENTS = [0, 0, 0, 1, 1, 2, 2]
PUBLISHED = {
    1.0: (
        0.9245360382361759,
        [
            [-0.06274100316221061, 0.030189959958640156, 0.03255104320357046],
            [0.014600666298221092, -0.04925653785357921, 0.034655871555358105],
            [0.019291279951043117, 0.02031893434743043, -0.03961021429847354],
            [-0.1706580943237047, 0.025690258992254827, 0.14496783533144988],
            [0.2254402958427205, -0.23527930844212064, 0.009839012599400116],
            [0.020400086126697824, -0.02806642463237956, 0.007666338505681746],
            [0.015693045953149902, 0.005047119483849999, -0.0207401654369999],
        ],
    ),
    10.0: (
        1.6908228539587182,
        [
            [0.026462604260585044, -0.01273337885533825, -0.013729225405246797],
            [-0.0061582001357511065, 0.020775190111255275, -0.014616989975504162],
            [-0.008136585028849029, -0.008570024251010323, 0.01670660927985935],
            [-0.840356116782564, 0.1265042034567643, 0.7138519133257998],
            [1.1101151242281628, -1.1585644782056153, 0.048449353977452245],
            [-0.3013675078751962, 0.41462121257212564, -0.1132537046969295],
            [-0.231831087403221, -0.0745603627038428, 0.3063914501070638],
        ],
    ),
}


def objective(penalty: float, warmup_steps: int = 0) -> RiskExtrapolation:
    return RiskExtrapolation(3, 3, environments="group", penalty=penalty, warmup_steps=warmup_steps)


@pytest.mark.parametrize("penalty", PUBLISHED)
def test_values_and_gradients_are_the_published_ones(penalty):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    losses = cross_entropy(logits, torch.tensor(LABELS), reduction="none")
    value = objective(penalty)(losses, torch.ones(7, dtype=torch.float64), torch.tensor(ENVIRONMENTS))
    (gradient,) = torch.autograd.grad(value, logits)
    expected, expected_gradient = PUBLISHED[penalty]
    assert value.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, torch.tensor(expected_gradient, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_an_environment_without_examples_counts_neither_in_the_mean_nor_in_the_variance():
    losses, weights, groups = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([1.0, 1.0, 0.5]), torch.tensor([0, 0, 2])
    risks = torch.tensor([2.0, 4.0])
    torch.testing.assert_close(objective(7.0)(losses, weights, groups), risks.mean() + 7 * risks.var(correction=0))


def test_the_factor_is_1_in_the_first_steps_and_evaluation_counts_no_step():
    losses, weights, groups = torch.tensor([1.0, 3.0]), torch.ones(2), torch.tensor([0, 1])
    method = objective(5.0, warmup_steps=2)
    method.eval()
    values = [method(losses, weights, groups).item() for _ in range(3)]
    method.train()
    values += [method(losses, weights, groups).item() for _ in range(4)]
    assert values == [3.0] * 5 + [7.0] * 2

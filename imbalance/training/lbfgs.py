"""L-BFGS: minimise a convex loss of the last layer over all training examples, for many runs at once.

The inputs of the last layer do not change, so its logits are linear in its parameters. An iteration therefore needs one
matrix product for the change of the logits along its direction, and one for the gradient. A line search reads only the
logits, so its trials need no product. Several runs with the same inputs share the two products: their layers are rows of one matrix.
Each run has its own step length. A run that has converged leaves the matrix.

Liu and Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical Programming, 1989.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MEMORY = 10  # number of (step, change of the gradient) pairs that approximate the curvature, as in scikit-learn
TRIALS = 25  # largest number of step lengths that a line search tries
# Constants of the strong Wolfe conditions: least decrease and largest remaining slope, as shares of the slope at length 0.
ARMIJO, WOLFE = 1e-4, 0.4
STILL = 10  # iterations in a row that do not lower the objective beyond rounding errors, after which a fit ends


@dataclass(frozen=True)
class Problem:
    """Inputs, labels and loss of a fit; runs on the same data share them.

    inputs: (N, D) inputs of the last layer.
    targets, groups: (N,).
    loss: function from logits (B, K), targets and groups to (B,) losses.
    is_odd: whether the layer has two classes, and the loss reads only the difference of their logits. Then the two rows
        of the layer differ only in sign, so one of them is enough.
    """

    inputs: Tensor
    targets: Tensor
    groups: Tensor
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    is_odd: bool

    def products(self, layers: Tensor) -> Tensor:
        """Return the outputs (M, R, N) of `layers`, (M, R, D + 1): M layers of R rows, whose last column is the bias."""
        rows = layers.flatten(0, 1)
        outputs = torch.addmm(rows[:, -1:], rows[:, :-1], self.inputs.T)
        return outputs.view(*layers.shape[:2], -1)

    def gradients(self, slopes: Tensor) -> Tensor:
        """Return the derivatives (M, R, D + 1) by the layers, from the derivatives (M, R, N) by their outputs."""
        rows = slopes.flatten(0, 1)
        return torch.cat([rows @ self.inputs, rows.sum(1, keepdim=True)], 1).view(*slopes.shape[:2], -1)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the logits (M, N, K) of outputs (M, R, N)."""
        return torch.stack([-outputs[:, 0], outputs[:, 0]], 2) if self.is_odd else outputs.transpose(1, 2)

    def losses(self, outputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (M,) mean weighted losses in float64, and their derivatives (M, R, N) by the outputs.

        If `is_odd`, the derivatives are by one of the two logits, so they are half of those by the output.

        Args:
            weights: (M, N) importance weights.
        """
        models, size = len(outputs), len(self.targets)
        with torch.enable_grad():
            logits = self.logits(outputs).reshape(models * size, -1).detach().requires_grad_()
            losses = self.loss(logits, self.targets.repeat(models), self.groups.repeat(models))
            losses = weights * losses.view_as(weights)
            (slopes,) = torch.autograd.grad(losses.sum(), logits)
        slopes = slopes.view(models, size, -1) / size
        rows = slopes[:, None, :, 1] if self.is_odd else slopes.transpose(1, 2).contiguous()
        return losses.detach().sum(1, dtype=torch.float64) / size, rows


class State(NamedTuple):
    """State of M fits with P = R · (D + 1) parameters each.

    points, gradients: (M, R, D + 1).
    outputs: (M, R, N) outputs of the layers.
    values: (M,) objectives, in float64.
    steps, changes: the last steps (M, P), and the changes (M, P) of the gradient in these steps; the latest is last. A
        pair without positive curvature has zeros as its change, and is ignored.
    """

    points: Tensor
    gradients: Tensor
    outputs: Tensor
    values: Tensor
    steps: Sequence[Tensor]
    changes: Sequence[Tensor]


def directions(state: State) -> Tensor:
    """Return the directions (M, R, D + 1) of L-BFGS: minus the gradients, times the approximate inverse Hessian."""
    result, products = -state.gradients.flatten(1), []
    curvatures = [(step * change).sum(1) for step, change in zip(state.steps, state.changes)]
    inverses = [torch.where(curvature > 0, 1 / curvature, 0) for curvature in curvatures]
    for step, change, inverse in zip(reversed(state.steps), reversed(state.changes), reversed(inverses)):
        products.append(inverse * (step * result).sum(1))
        result = torch.addcmul(result, change, products[-1][:, None], value=-1)
    scale = result.new_ones(len(result))
    for change, curvature in zip(state.changes, curvatures):  # the latest pair with positive curvature counts
        scale = torch.where(curvature > 0, curvature / change.square().sum(1), scale)
    result = result * scale[:, None]
    for step, change, inverse, product in zip(state.steps, state.changes, inverses, reversed(products)):
        result = torch.addcmul(result, step, (product - inverse * (change * result).sum(1))[:, None])
    return result.view_as(state.gradients)


def line_search(
    along: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    slope: Tensor,
    lengths: Tensor,
    rounding: float,
) -> tuple[Tensor, Tensor]:
    """Find a (M,) step length for each of M fits that meets the strong Wolfe conditions; 0 if no length meets the first condition.

    If no trial meets the second condition, a length that meets the first is returned.

    Args:
        along: function from the step lengths of some fits, and the numbers of these fits, to the values and the
            derivatives of the objective at these lengths.
        start, slope: (M,) values and derivatives at length 0.
        lengths: (M,) step lengths to try first.
        rounding: relative rounding error of a value; the objective may rise by this much.

    Returns:
        The step lengths, and the values there. The last call of `along` for a fit is at its step length.
    """
    every = torch.arange(len(lengths), device=lengths.device)
    low, low_slope = torch.zeros_like(lengths), slope
    high, high_slope = torch.full_like(lengths, torch.inf), torch.full_like(lengths, torch.inf)
    chosen, reached, trial, searching = torch.zeros_like(lengths), start, lengths, slope < 0
    for _ in range(TRIALS):
        fits = every[searching]
        if not len(fits):
            return chosen, reached
        value, here = torch.full_like(start, torch.nan), torch.full_like(start, torch.nan)
        value[fits], here[fits] = along(trial[fits], fits)
        falls = (value <= start + ARMIJO * trial * slope + rounding * start.abs()) & here.isfinite()
        chosen = torch.where(searching & falls, trial, chosen)
        reached = torch.where(searching & falls, value, reached)
        rises = searching & (~falls | (here > 0))
        high, high_slope = torch.where(rises, trial, high), torch.where(rises, here, high_slope)
        climbs = searching & ~rises
        low, low_slope = torch.where(climbs, trial, low), torch.where(climbs, here, low_slope)
        searching = searching & ~(falls & (here.abs() <= -WOLFE * slope))
        # The next trial is where the derivative would be 0 if it were linear, at some distance from both ends.
        share = (low_slope / (low_slope - high_slope)).nan_to_num(0.5).clamp(0.1, 0.9)
        longer = (low * slope / (slope - low_slope)).nan_to_num(torch.inf).where(low_slope > slope, torch.inf)
        longer = longer.minimum(10 * trial).maximum(2 * trial)
        trial = torch.where(high.isfinite(), low + (high - low) * share, longer)
    along(chosen[searching], every[searching])  # the last call for a fit must be at its chosen length
    return chosen, reached


def iterate(problem: Problem, weights: Tensor, decay: Tensor, state: State) -> tuple[State, Tensor]:
    """Take one iteration of M fits, and return their new state and their (M,) step lengths, 0 where no step was found.

    Args:
        weights: (M, N) importance weights.
        decay: (M, 1, D + 1) weight decay of each column of the layers.
        state: state of the fits.
    """
    ways, factor = directions(state), 2 if problem.is_odd else 1
    moves, slopes = problem.products(ways), torch.zeros_like(state.outputs)
    square, mixed, ends = (
        factor * (decay * first * second).sum((1, 2), dtype=torch.float64)
        for first, second in ((state.points, state.points), (state.points, ways), (ways, ways))
    )

    def along(lengths: Tensor, fits: Tensor) -> tuple[Tensor, Tensor]:
        some = slice(None) if len(fits) == len(moves) else fits  # an index copies the tensors
        scaled = lengths.to(moves.dtype)[:, None, None]
        value, slopes[some] = problem.losses(torch.addcmul(state.outputs[some], moves[some], scaled), weights[some])
        slope = factor * (slopes[some] * moves[some]).sum((1, 2), dtype=torch.float64)
        value = value + square[fits] / 2 + lengths * mixed[fits] + lengths.square() * ends[fits] / 2
        return value, slope + mixed[fits] + lengths * ends[fits]

    sizes = state.gradients.abs().sum((1, 2), dtype=torch.float64)
    first = torch.ones_like(sizes) if len(state.steps) else 1 / sizes.clamp(min=1)
    slope = factor * (state.gradients * ways).sum((1, 2), dtype=torch.float64)
    lengths, values = line_search(along, state.values, slope, first, torch.finfo(moves.dtype).eps)
    scaled = lengths.to(moves.dtype)[:, None, None]
    points, outputs = torch.addcmul(state.points, ways, scaled), torch.addcmul(state.outputs, moves, scaled)
    gradients = torch.addcmul(problem.gradients(slopes), decay.expand_as(points), points)
    step, change = (points - state.points).flatten(1), (gradients - state.gradients).flatten(1)
    change = change * ((step * change).sum(1) > 0)[:, None]
    steps, changes = (
        [*past[max(0, len(past) + 1 - MEMORY) :], new] for past, new in ((state.steps, step), (state.changes, change))
    )
    return State(points, gradients, outputs, values, steps, changes), lengths


def started(problem: Problem, weights: Tensor, decay: Tensor, points: Tensor) -> State:
    """Return the state of M fits at `points` before their first iteration; the arguments are those of `iterate`."""
    outputs = problem.products(points)
    values, slopes = problem.losses(outputs, weights)
    penalties = (decay * points.square()).sum((1, 2), dtype=torch.float64) * (1 if problem.is_odd else 0.5)
    return State(points, problem.gradients(slopes) + decay * points, outputs, values + penalties, [], [])


class Solver(torch.optim.Optimizer):
    """State of the fit of one run, as an optimiser whose state a checkpoint can hold; see `imbalance.training.optim.lbfgs`.

    state: under the key of the weight parameter, the tensors of `State` of this run, except its point, which is the layer.
    param_groups: a single group. Its "lr" is the last step length, "value" the objective, "largest" the largest entry
        of the gradient, "still" the number of iterations in a row that have not lowered the objective, and "ended" says
        whether the fit has ended.
    problem: inputs and labels of the fit; None before the first iteration.
    fits: the `Fits` of this run alone; None if the run is stacked, and before the first iteration since its state was
        loaded.
    """

    def __init__(self, head: Sequence[nn.Parameter], weight_decay: float, decayed: str, tolerance: float):
        group = {"params": head, "lr": 0.0, "value": 0.0, "largest": 0.0, "still": 0, "ended": False}
        super().__init__([group], {"tolerance": tolerance, "weight_decay": weight_decay, "decayed": decayed})
        self.problem: Problem | None = None
        self.fits: Fits | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded state; torch calls this method in `load_state_dict`."""
        super().__setstate__(state)
        self.fits = None  # it holds the state before

    def step(self) -> None:
        """Raise a TypeError, because an iteration needs all examples; use `Fits.step`."""
        raise TypeError("lbfgs needs all examples: use imbalance.training.lbfgs.Fits")

    @property
    def ended(self) -> bool:
        """True once the fit has converged, or no step lowers its objective any more."""
        return self.param_groups[0]["ended"]

    @property
    def warning(self) -> str:
        """Return a warning if the gradient is larger than the tolerance; else an empty text."""
        group = self.param_groups[0]
        if group["largest"] <= group["tolerance"]:
            return ""
        reason = (
            f"rounding in {str(group['params'][0].dtype).removeprefix('torch.')} hides any further decrease; use "
            "config.trainer.dtype='float64', or a larger config.optim.tolerance"
            if group["ended"]
            else "config.trainer.epochs was too small; use more epochs, or a larger config.optim.tolerance"
        )
        return (
            f"config.optim.name='lbfgs': not converged: the largest entry of the gradient is {group['largest']:.2g}, and "
            f"config.optim.tolerance is {group['tolerance']:g}; {reason}"
        )


class Fits:
    """Fits of several runs that share one problem.

    problem: inputs, labels and loss of all fits.
    solvers: for each of M different fits, the solvers of the runs that have this fit.
    weights: (M, N) importance weights.
    """

    def __init__(self, problem: Problem, solvers: Sequence[Sequence[Solver]], weights: Tensor):
        self.problem, self.solvers, self.weights = problem, solvers, weights
        groups = [same[0].param_groups[0] for same in solvers]
        layers = [torch.cat([weight, bias[:, None]], 1).detach() for weight, bias in (one["params"] for one in groups)]
        points = torch.stack(layers)
        points = (points[:, 1:] - points[:, :1]) / 2 if problem.is_odd else points
        self.decay = torch.zeros_like(points[:, :1])
        for decay, group in zip(self.decay, groups):
            decay[:, : None if group["decayed"] == "all" else -1] = group["weight_decay"]
        states = [same[0].state[group["params"][0]] for same, group in zip(solvers, groups)]
        if not states[0]:
            self.state = started(problem, weights, self.decay, points)
            return
        gradients, outputs = (torch.stack([state[name] for state in states]) for name in ("gradients", "outputs"))
        steps, changes = (
            list(map(torch.stack, zip(*(state[name] for state in states)))) for name in ("steps", "changes")
        )
        values = torch.tensor([group["value"] for group in groups], dtype=torch.float64, device=points.device)
        self.state = State(points, gradients, outputs, values, steps, changes)

    @torch.no_grad()
    def step(self) -> None:
        """Take one iteration of every fit, and update the layers and the states of its solvers."""
        self.state, lengths = iterate(self.problem, self.weights, self.decay, self.state)
        points, (_, gradients, outputs, values, steps, changes) = self.state.points, self.state
        layers = torch.cat([-points, points], 1) if self.problem.is_odd else points
        largest = gradients.abs().amax((1, 2)).tolist()
        for i, (length, value) in enumerate(zip(lengths.tolist(), values.tolist())):
            state = {"gradients": gradients[i], "outputs": outputs[i]}
            state |= {"steps": [step[i] for step in steps], "changes": [change[i] for change in changes]}
            for solver in self.solvers[i]:
                group = solver.param_groups[0]
                weight, bias = group["params"]
                weight.copy_(layers[i, :, :-1])
                bias.copy_(layers[i, :, -1])
                solver.state[weight] = state
                falls = value < group["value"] - torch.finfo(weight.dtype).eps * abs(value)
                still = 0 if falls else group["still"] + 1
                ended = length == 0 or still == STILL or largest[i] <= group["tolerance"]
                group.update(lr=length, value=value, largest=largest[i], still=still, ended=ended)

    def zero_grad(self) -> None:
        """Do nothing, because an iteration leaves no gradients in the parameters."""

    def logits(self) -> Tensor:
        """Return the logits (M, N, K) of all examples."""
        return self.problem.logits(self.state.outputs)

    def losses(self) -> Tensor:
        """Return the (M,) mean weighted losses, without the penalties."""
        factor = 1.0 if self.problem.is_odd else 0.5
        return self.state.values - factor * (self.decay * self.state.points.square()).sum((1, 2), dtype=torch.float64)

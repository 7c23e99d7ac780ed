"""Estimator for scikit-learn: `ImbalanceClassifier`, which trains by the loop of `imbalance.run`."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from imbalance.config.experiment import Experiment
from imbalance.config.resolve import resolve
from imbalance.config.schema import Fraction, MissingKeys, check_values, look_up, short_repr
from imbalance.config.tags import tags_of
from imbalance.data import Dataset, as_dataset
from imbalance.data.population import check_population
from imbalance.data.problems import raise_first
from imbalance.data.splits import stratified_split
from imbalance.data.tables.columns import Columns, array_columns, column_names, frame_columns, is_table
from imbalance.data.tables.encoding import encoding_notes, fit_features, transform
from imbalance.data.tables.input_columns import choose_inputs
from imbalance.data.tables.values import as_categories, check_unmasked
from imbalance.deploy.load import build_network
from imbalance.errors import BadInput
from imbalance.methods.heads.registry import HEADS
from imbalance.metrics.warnings import corrected_twice, equal_views
from imbalance.models.artifact import description
from imbalance.training.loop import train_in_memory
from imbalance.utils.package import __version__
from imbalance.utils.torch_state import own_torch_state

SECTIONS = (
    "sampler",
    "weights",
    "mix",
    "loss",
    "objective",
    "model",
    "adapter",
    "optim",
    "head",
    "trainer",
    "callbacks",
)
# Sections that are values of a run and not the choice of a function, each with an example.
UNNAMED = {"trainer": "trainer={'epochs': 50}", "callbacks": "callbacks={'select': 'last'}"}
MISSING = ("", "nan")  # texts that stand for None and nan
NEVER = 10_000_000  # epochs between evaluations; no run has more, so only its last epoch is evaluated
PREDICTED_ROWS = 4096  # rows of a batch in predict_proba

# A changed section of a config: the name of a function, new values by key, or no change.
Setting = str | Mapping[str, Any] | None


class ImbalanceClassifier(ClassifierMixin, BaseEstimator):
    """Classifier with the methods of a config, on arrays (N, D) of numbers and on data frames.

        classifier = ImbalanceClassifier(loss={"name": "poly", "alpha": 1.0, "left": "logistic"}, random_state=0)
        classifier.fit(X, y, groups=sex).predict_proba(X_new)

    `fit` gives the same network weights as `imbalance.run` with the same config and data, but writes no files. (Labels
    such as "2" and "10" are an exception: scikit-learn sorts them as text, `imbalance.run` by value.) Inputs are encoded
    as by the data set "arrays": numbers are standardised, categories of a data frame become columns of 0 and 1. A missing
    number becomes the mean, and a further column marks it.

    `fit` sets `classes_`, the labels in the order of `predict_proba`; `n_features_in_`, and `feature_names_in_` for a
    data frame; `network_`, the trained network in float64; and `encoding_`, the encoding of the columns of X, see
    `imbalance.data.tables.encoding`.

    Args:
        config: config to start from: the name of a config, the path of its file, or a config object.
        sampler, weights, mix, loss, objective, model, adapter, optim, head, trainer, callbacks: changes of sections of
            `config`. A text, such as "undersample", is the name of another function. A mapping has new values by key, such
            as `{"lr": 0.01}`; other values stay, unless the mapping has the name of another function. None changes nothing.
            The sections `trainer` and `callbacks` take a mapping only.
        validation_fraction: share of each group that is held out from training, to choose the epoch as `config` says.
            With 0.0 all examples are trained on, and the network of the last epoch is used.
        random_state: seed of the run, and of the draw of the validation examples.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | Experiment = "arrays_ce",
        *,
        sampler: Setting = None,
        weights: Setting = None,
        mix: Setting = None,
        loss: Setting = None,
        objective: Setting = None,
        model: Setting = None,
        adapter: Setting = None,
        optim: Setting = None,
        head: Setting = None,
        trainer: Setting = None,
        callbacks: Setting = None,
        validation_fraction: float = 0.0,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.config = config
        self.sampler = sampler
        self.weights = weights
        self.mix = mix
        self.loss = loss
        self.objective = objective
        self.model = model
        self.adapter = adapter
        self.optim = optim
        self.head = head
        self.trainer = trainer
        self.callbacks = callbacks
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> "ImbalanceClassifier":
        """Train on N examples.

        Args:
            X: (N, D) numbers, or a data frame of pandas, polars or pyarrow with numbers and categories.
            y: (N,) labels: numbers or texts.
            groups: (N,) values of an attribute, such as the sex. A group is a class with one of these values, as
                everywhere in this project. None: the classes are the groups.

        Raises:
            BadInput: a parameter or the data is wrong. `BadInput` is a ValueError.
            Diverged: a value became non-finite.
        """
        check_unmasked(y, "y: ")
        check_unmasked(groups, "groups: ")
        if type(X).__name__ == "LazyFrame":
            raise BadInput("X: a LazyFrame of polars given, which holds no rows yet; pass X.collect()")
        if is_table(X):
            column_names(X)  # refuse names that occur twice, for which each library has errors of its own
        validate_data(self, X, y, skip_check_array=True)
        columns = self._columns(X, reset=True)
        labels = check_array(y, ensure_2d=False, dtype=None, input_name="y")  # pyright: ignore[reportArgumentType] (its stub lacks None)
        y = column_or_1d(labels, warn=True)
        check_classification_targets(y)
        check_consistent_length(X, y, groups)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise BadInput(f"y: one class, {self.classes_.tolist()[0]!r}; at least two classes are needed")
        state = self.random_state
        seed = int(state) if isinstance(state, int | np.integer) else check_random_state(state).randint(2**31 - 1)
        config = self._config(seed)
        dataset, self.encoding_ = self._dataset(columns, targets, groups, seed)
        for line in filter(None, (corrected_twice(config), equal_views(config, dataset))):
            warnings.warn(line, stacklevel=2)
        with own_torch_state():  # building a network draws random numbers, too
            run = train_in_memory(config, dataset)
            network = run.learner.evaluated_network
            rebuilt = build_network(description(config, run.learner.dataset, network), network.state_dict())
        # In float64, the prediction for an example does not depend on the other examples of its batch.
        self.network_ = rebuilt.double().eval().requires_grad_(False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return (N,) the label with the largest probability for each row of `X`, which is as for `fit`."""
        largest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[largest]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return (N, K) the probability of each class for each row of `X`, which is as for `fit`.

        With importance weights, or a loss that shifts logits by class, the probabilities do not follow the class
        frequencies of the training data.
        """
        check_is_fitted(self)
        inputs = torch.from_numpy(transform(self._columns(X, reset=False), self.encoding_))
        with torch.inference_mode():
            logits = [self.network_(batch.double()) for batch in inputs.split(PREDICTED_ROWS)]
        return torch.cat(logits).softmax(1).numpy()

    def _columns(self, X: Any, reset: bool) -> Columns:
        """Return `X` as columns of a table.

        An array becomes a single column (N, D), except if `fit` got columns with names.

        Args:
            reset: True in `fit`, to record the number of columns; False to check it.
        """
        names = getattr(self, "feature_names_in_", None)
        if names is not None and is_table(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return frame_columns(X)
        check_unmasked(X, "X: ")
        array = np.asarray(validate_data(self, X, reset=reset, ensure_all_finite="allow-nan"))
        return array_columns(Path("X"), {"X": array} if names is None else dict(zip(names, array.T)))

    def _config(self, seed: int) -> Experiment:
        """Return the validated config of the run."""
        fraction = {"validation_fraction": self.validation_fraction}
        check_values("", fraction, {"validation_fraction": Fraction})
        changes: dict[str, Any] = {"seed": seed, "data": {"name": "in_memory"}}
        if not self.validation_fraction:
            changes |= {"callbacks.select": "last", "callbacks.patience": 0, "trainer.eval_every": NEVER}
        for section in SECTIONS:
            setting = getattr(self, section)
            if isinstance(setting, str) and section in UNNAMED:
                raise BadInput(
                    f"{section}: {setting!r} given; a mapping of values is needed, such as {UNNAMED[section]}"
                )
            if isinstance(setting, str):
                changes[f"{section}.name"] = setting
            elif isinstance(setting, Mapping):
                values = {
                    key: value.item() if isinstance(value, np.generic) else value for key, value in setting.items()
                }
                changes |= {f"{section}.{key}": value for key, value in values.items()}
            elif setting is not None:
                raise BadInput(f"{section}: {setting!r} given; a name, a mapping or None is needed")
        try:
            config = resolve(self.config, changes)[0]
        except MissingKeys as error:
            section = next(iter(error.values)).partition(".")[0]
            setting = getattr(self, section)
            given = {"name": setting} if isinstance(setting, str) else dict(setting or {})
            items = [f"{key!r}: {short_repr(value)}" for key, value in given.items()]
            items += [f"{key.removeprefix(f'{section}.')!r}: <{fits}>" for key, fits in error.values.items()
                      if key.startswith(f"{section}.")]  # fmt: skip
            raise BadInput(f"{section}: a value is missing; give {section}={{{', '.join(items)}}}") from None
        readers = {
            f"callbacks.select={config.callbacks.select!r}": config.callbacks.select == "best",
            f"callbacks.patience={config.callbacks.patience}": config.callbacks.patience > 0,
            f"head.name={config.head.name!r}": tags_of(look_up(HEADS, config.head.name)).reads_val,
        }
        if not self.validation_fraction and any(readers.values()):
            reader = next(name for name, reads in readers.items() if reads)
            raise BadInput(
                f"validation_fraction: 0.0 given, but {reader} reads validation examples; use a validation_fraction above 0, "
                "such as 0.2"
            )
        return config

    def _dataset(
        self, columns: Columns, targets: np.ndarray, groups: Any, seed: int
    ) -> tuple[Dataset, Mapping[str, Any]]:
        """Return the data set to train on, and the encoding of its columns; its test split is its validation split."""
        names, labels = None, (targets,)
        if groups is not None:
            attribute = as_categories(np.asarray(groups), "groups").sorted(None)
            if missing := [value for value in attribute.values if value in MISSING]:
                row = int(np.flatnonzero(attribute.codes == attribute.values.index(missing[0]))[0])
                raise BadInput(f"groups[{row}] is missing; leave out the example, or give it a value of its own")
            names, labels = attribute.values, (targets, attribute.codes)
        train = val = np.arange(len(targets))
        if self.validation_fraction:
            groups_with_classes = np.unique(np.stack(labels, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
            train, val = stratified_split(groups_with_classes, self.validation_fraction, np.random.default_rng(seed))
        chosen = choose_inputs(columns, list(columns.values), MISSING)
        raise_first(chosen.problems)
        if not (chosen.numeric or chosen.categorical):
            raise BadInput("; ".join([f"X: none of the {len(columns.values)} columns is an input", *chosen.notes]))
        encoding = fit_features(columns, train, chosen.numeric, chosen.categorical, MISSING)
        inputs = transform(columns, encoding)
        for note in (*chosen.notes, *encoding_notes(columns, train, encoding, inputs.shape[1])[1:]):
            warnings.warn(f"X: {note}", stacklevel=3)
        examples = {name: (inputs[rows], *(values[rows] for values in labels)) for name, rows in
                    (("train", train), ("val", val), ("test", val))}  # fmt: skip
        dataset = as_dataset(examples, self.classes_.astype(str).tolist(), names)
        return check_population(dataset, "X, y"), encoding

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, with the version of this program."""
        return {**super().__getstate__(), "_imbalance_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled state; warn if another version of this program wrote it, as scikit-learn does."""
        state = dict(state)
        if (before := state.pop("_imbalance_version", "an older version")) != __version__:
            warnings.warn(
                f"{type(self).__name__} was pickled by imbalance {before}, and this is {__version__}; predictions may be wrong, "
                "so fit it again",
                stacklevel=2,
            )
        super().__setstate__(state)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

"""Estimator: scikit-learn's own checks, and equality with the run of the same config."""

import inspect
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import imbalance
import imbalance.sklearn
from imbalance.config.resolve import config_file, load
from imbalance.config.tags import tags_of
from imbalance.data.splits import stratified_split
from imbalance.errors import BadInput, Diverged
from imbalance.methods.heads.registry import HEADS
from imbalance.sklearn import ImbalanceClassifier

SHORT = {"epochs": 2, "batch_size": 32}
JTT = {"name": "just_train_twice", "first_epochs": 1, "upweight": 5.0}
XRM = {"name": "xrm", "first_epochs": 2, "lr": 0.05}
rng = np.random.default_rng(0)
RARE = rng.random(160) < 0.25
X = rng.normal(size=(160, 4)) + 2 * RARE[:, None] + [0, 10, 0, 0]
Y = np.where(RARE, "rare", "common")
SEX = rng.choice(["f", "m"], 160)


def classifier(**parameters) -> ImbalanceClassifier:
    return ImbalanceClassifier(**{"trainer": SHORT, "random_state": 0} | parameters)


def test_a_missing_value_is_asked_for_as_an_argument_of_the_classifier():
    with pytest.raises(
        BadInput, match="^loss: a value is missing; give loss={'name': 'focal', 'gamma': <number, at least 0>}$"
    ):
        classifier(loss="focal").fit(X, Y)


def test_a_loss_and_weights_that_correct_the_same_imbalance_warn():
    with pytest.warns(
        UserWarning, match="^config.loss.name='balanced_softmax' and config.weights.name='importance' both"
    ):
        classifier(loss="balanced_softmax", trainer=SHORT | {"epochs": 1}).fit(X, Y)


def test_scikit_learn_finds_no_fault():
    results = check_estimator(ImbalanceClassifier(), on_skip=None)
    skipped = {result["check_name"] for result in results if result["status"] != "passed"}
    assert len(results) > 50
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}  # need packages or settings


@pytest.mark.parametrize(
    ("parameters", "overrides", "groups"),
    [
        (dict(loss={"name": "poly", "alpha": 1.0, "left": "logistic"}),
         {"loss.name": "poly", "loss.alpha": 1.0, "loss.left": "logistic"}, None),
        (dict(config="arrays_dro", validation_fraction=0.25, objective={"step_size": 0.1}), {"objective.step_size": 0.1}, SEX),
        (dict(weights=JTT, head={"name": "temperature"}, validation_fraction=0.25),
         {f"weights.{key}": value for key, value in JTT.items()} | {"head.name": "temperature"}, None),
        (dict(config={"groups": XRM}), {f"groups.{key}": value for key, value in XRM.items()}, None),
    ],
    ids=["poly", "dro", "jtt", "xrm"],
)  # fmt: skip
def test_fit_is_the_run_of_the_same_config_to_the_bit(parameters, overrides, groups, tmp_path, capsys, monkeypatch):
    """The inputs are standardised by scikit-learn here; the run has files, `fit` has none and prints nothing."""
    base = parameters.get("config", "arrays_ce")
    if isinstance(base, dict):
        parameters["config"], base = load(config_file("arrays_ce")).to_dict() | base, "arrays_ce"
    monkeypatch.chdir(tmp_path)
    ours = classifier(**parameters).fit(X, Y, groups)
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")

    targets, train, val = RARE.astype(int), np.arange(len(Y)), np.arange(len(Y))
    attributes = () if groups is None else ((groups == "m").astype(int),)
    select = {"callbacks.select": "last"}
    if fraction := parameters.get("validation_fraction"):
        crossed = targets * 2 + (attributes[0] if attributes else 0)
        train, val = stratified_split(np.unique(crossed, return_inverse=True)[1], fraction, np.random.default_rng(0))
        select = {}
    inputs = StandardScaler().fit(X[train]).transform(X).astype(np.float32)
    data = {name: (inputs[rows], targets[rows], *(values[rows] for values in attributes))
            for name, rows in (("train", train), ("val", val), ("test", val))}  # fmt: skip
    overrides = {"trainer.epochs": 2, "trainer.batch_size": 32} | select | overrides
    imbalance.run(base, overrides, directory=tmp_path / "run", data=data)
    theirs = imbalance.load(tmp_path / "run", "cpu")
    expected = theirs.network.state_dict()
    assert ours.network_.state_dict().keys() == expected.keys()
    for name, values in ours.network_.state_dict().items():
        assert torch.equal(values, expected[name].double()), name
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict(inputs).probabilities, atol=1e-6)
    assert ours.predict(X).tolist() == [ours.classes_[int(name)] for name in theirs.predict(inputs).classes]


def test_groups_are_crossed_with_the_classes(monkeypatch):
    datasets, train = [], imbalance.sklearn.train_in_memory

    def noting(config, dataset):
        datasets.append(dataset)
        return train(config, dataset)

    monkeypatch.setattr(imbalance.sklearn, "train_in_memory", noting)
    classifier().fit(X, Y, SEX)
    (dataset,) = datasets
    assert dataset.class_names == ("common", "rare")
    assert dataset.group_names == ("common, f", "common, m", "rare, f", "rare, m")
    assert dataset.train.groups.tolist() == (2 * RARE + (SEX == "m")).tolist()


def test_what_it_learns_weighs_the_rare_class():
    """Importance weights, the default, against none, on classes that overlap."""
    rng = np.random.default_rng(1)
    targets = (np.arange(1200) % 20 == 0).astype(int)
    inputs = rng.normal(size=(1200, 2)) + targets[:, None]
    scores = [
        balanced_accuracy_score(
            targets, ImbalanceClassifier(weights=weights, random_state=0).fit(inputs, targets).predict(inputs)
        )
        for weights in (None, "uniform")
    ]
    assert scores[0] > 0.7 > 0.6 > scores[1]


# Frames


def table(rows=slice(None)) -> pyarrow.Table:
    """A number that is sometimes missing, and a category that says the class."""
    number = [None if i % 7 == 0 else float(value) for i, value in enumerate(X[:, 0])]
    return pyarrow.table({"number": number[rows], "colour": np.where(RARE, "red", "blue")[rows].tolist()})


def test_a_frame_has_categories_and_missing_values():
    ours = classifier(trainer=SHORT | {"epochs": 20}).fit(table(), Y)
    assert ours.feature_names_in_.tolist() == ["number", "colour"] and ours.n_features_in_ == 2
    assert (ours.predict(table()) == Y).all()
    assert ours.network_(torch.zeros(1, 4).double()).shape == (1, 2)  # number, its mark of a missing value, two colours
    unseen = pyarrow.table({"number": [0.0], "colour": ["green"]})
    assert ours.predict_proba(unseen).shape == (1, 2)
    with pytest.raises(ValueError, match="feature names should match"):
        ours.predict(table().select(["colour", "number"]))


def test_a_column_that_names_the_rows_is_left_out():
    """As by the data set "arrays"; alone it is no input."""
    names = [f"person {i}" for i in range(160)]
    with pytest.warns(UserWarning, match="column 'name' is left out"):
        ours = classifier().fit(table().append_column("name", [names]), Y)
    np.testing.assert_array_equal(
        ours.predict_proba(table().append_column("name", [names])), classifier().fit(table(), Y).predict_proba(table())
    )
    with pytest.raises(BadInput, match="none of the 1 columns is an input; column 'name' is left out"):
        classifier().fit(table().append_column("name", [names]).select(["name"]), Y)


def test_rounded_integers_of_a_column_are_told():
    with pytest.warns(UserWarning, match=r"X: column 'id' has integers above 2\*\*53, which are rounded") as told:
        classifier().fit(table().append_column("id", [2**60 + np.arange(160)]), Y)
    assert told[0].filename == __file__


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_frames_of_other_packages_are_the_same_table(package):
    frames = pytest.importorskip(package)
    columns = table().to_pydict()
    frame = frames.DataFrame(columns)
    expected = classifier().fit(table(), Y).predict_proba(table())
    np.testing.assert_array_equal(classifier().fit(frame, Y).predict_proba(frame), expected)


def test_an_array_may_follow_a_frame_of_numbers():
    frame = pyarrow.table({"a": X[:, 0], "b": X[:, 1]})
    ours = classifier().fit(frame, Y)
    with pytest.warns(UserWarning, match="valid feature names"):
        np.testing.assert_array_equal(ours.predict_proba(X[:, :2]), ours.predict_proba(frame))


# As scikit-learn uses it


def test_a_pipeline_a_grid_clones_and_pickles():
    pipeline = make_pipeline(PCA(2, random_state=0), classifier(validation_fraction=0.2))
    grid = {
        "imbalanceclassifier__optim": [{"lr": 1e-6}, {"lr": 0.1}],
        "imbalanceclassifier__sampler": [None, "shuffle"],
    }
    search = GridSearchCV(pipeline, grid, cv=2, scoring="balanced_accuracy", error_score="raise")
    search.fit(X, Y, imbalanceclassifier__groups=SEX)
    assert search.best_params_["imbalanceclassifier__optim"] == {"lr": 0.1}
    best = search.best_estimator_
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(best)).predict_proba(X), best.predict_proba(X))
    np.testing.assert_array_equal(
        clone(best).fit(X, Y, imbalanceclassifier__groups=SEX).predict_proba(X), best.predict_proba(X)
    )


def test_fits_in_threads_are_those_one_after_another():
    def fitted(seed: int) -> np.ndarray:
        return classifier(random_state=seed).fit(X, Y).predict_proba(X)

    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(fitted, range(3)))
    assert all(np.array_equal(fitted(seed), together[seed]) for seed in range(3))


def test_the_random_state_decides_all():
    def drawn(random_state) -> np.ndarray:
        return classifier(random_state=random_state).fit(X, Y).predict_proba(X)

    before = torch.get_rng_state()
    np.testing.assert_array_equal(drawn(3), drawn(np.int64(3)))
    np.testing.assert_array_equal(drawn(np.random.RandomState(0)), drawn(np.random.RandomState(0)))
    assert (drawn(3) != drawn(4)).any()
    np.random.seed(0)
    assert (drawn(None) != drawn(None)).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_numpy_are_values_of_a_section():
    """`RandomizedSearchCV` draws them."""
    ours = classifier(optim={"lr": np.float64(0.1)}, trainer={"epochs": np.int64(1)}).fit(X, Y)
    assert np.isfinite(ours.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("parameters", "data", "words"),
    [
        ({}, (X, np.full(160, "a")), "y: one class, 'a'; at least two classes are needed"),
        ({"loss": "pola"}, (X, Y), "config.loss.name: 'pola' given; did you mean poly?"),
        ({"loss": "poly"}, (X, Y), "loss: a value is missing; give loss={'name': 'poly', 'alpha': <number, greater than 0>, 'left': <"),
        ({"trainer": "fast"}, (X, Y), "trainer: 'fast' given; a mapping of values is needed, such as trainer={'epochs': 50}"),
        ({"callbacks": "last"}, (X, Y), "callbacks: 'last' given; a mapping of values is needed"),
        ({"loss": 3}, (X, Y), "loss: 3 given; a name, a mapping or None is needed"),
        ({"config": "array_ce"}, (X, Y), "no config array_ce; did you mean arrays_ce"),
        ({"optim": {"rate": 1.0}}, (X, Y), "config.optim.rate: no such key"),
        ({"validation_fraction": 1.0}, (X, Y), "validation_fraction: 1.0 given; it should be less than 1"),
        ({"head": "temperature"}, (X, Y), "validation_fraction: 0.0 given, but head.name='temperature' reads validation examples"),
        ({"callbacks": {"select": "best"}}, (X, Y), "but callbacks.select='best' reads validation examples"),
        ({"callbacks": {"patience": 2}}, (X, Y), "but callbacks.patience=2 reads validation examples"),
        ({}, (np.where(X > 11, np.inf, X), Y), "infinity"),
        ({}, (X, Y, SEX[:-1]), "inconsistent numbers of samples"),
        ({}, (X, Y, np.where(np.arange(160) == 7, np.nan, 1.0)), "groups[7] is missing"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_a_value_error(parameters, data, words):
    with pytest.raises(ValueError) as error:
        classifier(**parameters).fit(*data)
    assert words in str(error.value)
    assert isinstance(error.value, BadInput) or "infinity" in words or "inconsistent" in words


def test_a_head_that_reads_val_says_so():
    """By the modules whose source reads the features of val."""
    readers = {function.__module__ for function in HEADS.values() if tags_of(function).reads_val}
    modules = {
        function.__module__
        for function in HEADS.values()
        if 'features("val")' in inspect.getsource(inspect.getmodule(function))
    }
    assert readers == modules and sum(tags_of(head).reads_val for head in HEADS.values()) == 4


def test_a_fit_that_diverges_names_no_run_directory():
    with pytest.raises(Diverged) as error:
        classifier(optim={"lr": 1e20}).fit(X, Y)
    assert "first non-finite" in str(error.value) and "replay" not in str(error.value)


@pytest.mark.parametrize("name", ["X", "y", "groups"])
def test_masked_arrays_are_refused(name):
    arguments = {"X": X, "y": Y, "groups": SEX}
    arguments[name] = np.ma.masked_array(
        arguments[name], np.arange(arguments[name].size).reshape(arguments[name].shape) == 3
    )
    with pytest.raises(BadInput, match=f"^{name}: a masked array given"):
        classifier().fit(*arguments.values())


def test_a_constant_column_is_no_input_whatever_its_size():
    """The rounding error of the mean of large values must not become an input."""
    expected = classifier().fit(np.c_[X, np.ones(len(X))], Y).predict_proba(np.c_[X, np.ones(len(X))])
    for value in (1e12, 1e20, 1e30):
        table = np.c_[X, np.full(len(X), value)]
        np.testing.assert_array_equal(classifier().fit(table, Y).predict_proba(table), expected)


def test_columns_of_one_name_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": X[:, 0], "b": X[:, 1]}).rename(columns={"b": "a"})
    with pytest.raises(BadInput, match="2 columns are named 'a'"):
        classifier().fit(frame, Y)


def test_a_pickle_of_another_version_warns(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = pickle.dumps(classifier())
        pickle.loads(saved)
    monkeypatch.setattr(imbalance.sklearn, "__version__", "99.0")
    with pytest.warns(UserWarning, match=r"pickled by imbalance \d+\.\d+.*, and this is 99.0; .*fit it again"):
        assert pickle.loads(saved).get_params() == classifier().get_params()


def test_groups_of_a_wrong_shape_and_a_lazy_frame_are_named():
    """scikit-learn's messages blamed `y`, and told to reshape the data."""
    with pytest.raises(BadInput, match=r"^groups has values of shape \(2,\) in each row"):
        classifier().fit(X, Y, groups=np.zeros((160, 2)))
    LazyFrame = type("LazyFrame", (), {})
    with pytest.raises(BadInput, match=r"pass X.collect\(\)"):
        classifier().fit(LazyFrame(), Y)


def test_every_section_is_a_parameter():
    """A parameter that is no section would change nothing, and a section without a parameter would end every fit."""
    parameters = set(ImbalanceClassifier().get_params()) - {"config", "validation_fraction", "random_state"}
    assert parameters == set(imbalance.sklearn.SECTIONS)


def test_an_objective_whose_views_are_equal_warns():
    supcon = {"name": "supcon", "penalty": 0.5, "temperature": 0.1, "width": 8, "detached": False}
    with pytest.warns(
        UserWarning, match="compares 2 views of each example, and this data set has no augmentation"
    ) as told:
        classifier(objective=supcon).fit(X, Y)
    assert [warning.filename for warning in told] == [__file__]

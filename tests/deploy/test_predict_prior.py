"""Predictions for other class shares, on a problem of three Gaussian classes whose posteriors are known."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from ml_collections import ConfigDict

import imbalance
from imbalance.cli.main import call
from imbalance.config.resolve import load as load_config
from imbalance.deploy.predict import export_file, predict_files
from imbalance.errors import BadInput
from imbalance.methods.prior import em_prior
from imbalance.metrics.scores import nll
from imbalance.training import finish
from imbalance.training.loop import train

SHARES = np.array([0.8, 0.15, 0.05])
MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
WEIGHTED = {"weights": dict(name="importance", by="class", exponent=1.0)}


def config_of(**sections) -> ConfigDict:
    """Full-batch training of a linear model, whose form the true posteriors have; tests/methods/test_prior.py has more."""
    config = load_config(ROOT / "configs" / "gaussian_erm.py")
    config.data = ConfigDict(
        dict(name="gaussian", dim=2, means=tuple(map(tuple, MEANS.tolist())), scale=1.0, radius=0.0,
             train_per_class=(1600, 300, 100), val_per_class=(80, 15, 5), test_per_class=(1600, 300, 100))
    )  # fmt: skip
    config.objective = ConfigDict(dict(name="average"))
    schedule = config.optim.schedule
    config.optim = ConfigDict(dict(name="adam", lr=0.1, betas=(0.9, 0.99), weight_decay=0.0, decayed="all"))
    config.optim.schedule = schedule
    config.trainer.update(epochs=150, batch_size=2000, eval_every=150)
    for key, value in sections.items():
        config[key] = ConfigDict(value)
    return config


def posteriors(inputs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    logs = inputs @ MEANS.T - (MEANS**2).sum(1) / 2 + np.log(shares)
    return np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """The directory of a run with importance weights, and the inputs and targets of its test split."""
    directory = tmp_path_factory.mktemp("weighted")
    train(config_of(**WEIGHTED), directory)
    rng = np.random.default_rng(1)
    targets = np.repeat(np.arange(3), (1600, 300, 100))
    return directory, rng.standard_normal((2000, 2)) + MEANS[targets], targets


def test_natural_probabilities_of_weighted_training_are_the_posteriors(weighted):
    """Up to the noise of 100 examples of the rare class; without the correction the error is 20 times as large."""
    directory, inputs, targets = weighted
    model, truth = imbalance.load(directory, "cpu"), posteriors(inputs, SHARES)
    plain, natural = model.predict(inputs).probabilities, model.predict(inputs, prior="natural").probabilities
    assert json.loads((directory / "model.json").read_text())["prior"] == {
        "natural": pytest.approx(SHARES.tolist()), "model": pytest.approx([1 / 3] * 3, rel=1e-5)
    }  # fmt: skip
    assert np.abs(natural - truth).mean() < 0.01 < 0.1 < np.abs(plain - truth).mean()
    assert nll(natural, targets) < nll(truth, targets) + 0.005 < nll(plain, targets) - 0.1
    np.testing.assert_allclose(plain, model.predict(inputs, prior="uniform").probabilities, atol=1e-5)
    given = plain * [0.2, 0.3, 0.5]
    expected = given / given.sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict(inputs, prior=(0.2, 0.3, 0.5)).probabilities, expected, atol=1e-5)
    without = model.predict(inputs, prior=[0.5, 0.5, 0.0])
    assert without.probabilities[:, 2].max() == 0 and "2" not in without.classes


def test_estimated_shares_are_those_of_em_and_near_the_truth(weighted):
    directory, _, _ = weighted
    targets = np.repeat(np.arange(3), (300, 300, 1400))
    inputs = np.random.default_rng(2).standard_normal((2000, 2)) + MEANS[targets]
    model = imbalance.load(directory, "cpu")
    shares = em_prior(model.predict(inputs).probabilities, [1 / 3] * 3)
    np.testing.assert_allclose(shares, [0.15, 0.15, 0.7], atol=0.05)
    found = model.predict(inputs, prior="estimated", batch_size=300).probabilities
    shares = model.estimated_shares(inputs, batch_size=300)
    np.testing.assert_allclose(model.predict(inputs, prior=shares.tolist()).probabilities, found, atol=1e-6)
    np.testing.assert_allclose(found, model.predict(inputs, prior=shares).probabilities, atol=1e-4)
    assert nll(found, targets) < nll(model.predict(inputs, prior="natural").probabilities, targets) - 0.1


def test_the_head_gives_what_predict_gives_and_an_export_carries_it(weighted, tmp_path):
    directory, inputs, _ = weighted
    train(config_of(**WEIGHTED, head=dict(name="prior", target="natural")), tmp_path / "run")
    model, other = imbalance.load(tmp_path / "run", "cpu"), imbalance.load(directory, "cpu")
    natural = other.predict(inputs, prior="natural").probabilities
    np.testing.assert_allclose(model.predict(inputs).probabilities, natural, atol=1e-5)
    assert model.about["prior"]["model"] == pytest.approx(SHARES.tolist())
    np.testing.assert_allclose(
        model.predict(inputs, prior="uniform").probabilities, other.predict(inputs).probabilities, atol=1e-5
    )
    message = export_file(run=str(directory), file=str(tmp_path / "model.pt2"), prior="natural")
    assert "with its logits shifted to the class shares of --prior" in message
    extra = {"model.json": ""}
    exported = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    found = exported(torch.from_numpy(inputs)).softmax(1).numpy()
    np.testing.assert_allclose(found, natural, atol=1e-5)
    assert json.loads(extra["model.json"])["prior"]["model"] == pytest.approx(SHARES.tolist())
    other.export(tmp_path / "model.safetensors", prior=[0.2, 0.3, 0.5])
    with pytest.raises(BadInput, match="'estimated' given, which needs examples"):
        other.export(tmp_path / "model.pt2", prior="estimated")
    with pytest.raises(BadInput, match="every class that was trained on needs a share above 0"):
        other.export(tmp_path / "model.pt2", prior=[0.5, 0.5, 0.0])


def test_the_command_line_predicts_for_class_shares(weighted, tmp_path, capsys):
    directory, inputs, _ = weighted
    np.save(tmp_path / "new.npy", inputs[::40])
    model, output = imbalance.load(directory, "cpu"), tmp_path / "out.csv"
    for prior, expected in (
        ("natural", "natural"), ("0.2,0.3,0.5", [0.2, 0.3, 0.5]), ("estimated", "estimated"), ("", None)
    ):  # fmt: skip
        flags = [f"--prior={prior}"] if prior else []
        assert (
            call(["predict", str(directory), str(tmp_path / "new.npy"), f"--output={output}", "--device=cpu", *flags])
            == 0
        )
        assert ("estimated class shares: 0 0." in capsys.readouterr().out) == (prior == "estimated")
        with open(output) as text:
            rows = [[float(row[name]) for name in "012"] for row in csv.DictReader(text)]
        np.testing.assert_allclose(rows, model.predict(inputs[::40], prior=expected).probabilities, atol=1e-5)
    assert call(["predict", str(directory), str(tmp_path / "new.npy"), f"--output={output}", "--prior=even"]) == 2
    assert (
        "prior: 'even' given; it must be 'natural', 'uniform', 'estimated' or 3 class shares" in capsys.readouterr().err
    )


@pytest.mark.parametrize("method", ["prior_shift", "at_prior", "check_prior", "estimated"])
def test_every_method_says_why_the_prior_is_not_known(weighted, method):
    model = imbalance.load(weighted[0], "cpu")
    about = {**model.about, "prior": {"natural": SHARES.tolist(), "model": None, "reason": "the loss is poly"}}
    argument = np.zeros((2, 3)) if method == "estimated" else "natural"
    with pytest.raises(BadInput, match="the prior of this model's probabilities is not known: the loss is poly"):
        getattr(replace(model, about=about), method)(argument)


def test_shares_are_estimated_from_logits_in_any_container_of_the_right_shape(weighted):
    directory, inputs, _ = weighted
    model = imbalance.load(directory, "cpu")
    logits = torch.cat(list(model.batched_logits(inputs, 500)))
    for same in (logits, logits.numpy(), logits.tolist()):
        np.testing.assert_allclose(model.estimated(same), model.estimated_shares(inputs), atol=1e-6)
    for wrong, words in ((logits[:, :2], "logits: 2 columns given; give 3"), (logits[0], "logits"), ("a", "logits")):
        with pytest.raises(BadInput, match=words):
            model.estimated(wrong)
    with pytest.raises(BadInput, match="^prior: None given; give 'natural'"):
        model.at_prior(None)  # pyright: ignore[reportArgumentType]


def test_a_model_whose_probabilities_have_no_prior_is_refused(weighted, tmp_path):
    config = config_of(loss=dict(name="poly", alpha=1.0, left="logistic"))
    config.trainer.update(epochs=1)
    train(config, tmp_path / "poly")
    model, zeros = imbalance.load(tmp_path / "poly", "cpu"), np.zeros((1, 2))
    assert model.predict(zeros).probabilities.sum() == pytest.approx(1)
    with pytest.raises(
        BadInput, match="'natural' given, and the prior of this model's probabilities is not known: .*'poly'"
    ):
        model.predict(zeros, prior="natural")
    config.head = ConfigDict(dict(name="prior", target="natural"))
    with pytest.raises(BadInput, match="'prior' given, which needs the effective prior of training, and there is none"):
        train(config, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    for head, known in (
        (dict(name="thresholds", metric="balanced_accuracy", rounds=1), None),
        (dict(name="temperature"), SHARES.tolist()),
        (dict(name="logit_adjusted", tau=1.0), [1 / 3] * 3),
    ):
        config = config_of(head=head)
        config.trainer.update(epochs=1)
        train(config, tmp_path / head["name"])
        found = imbalance.load(tmp_path / head["name"], "cpu").about["prior"]["model"]
        assert found == (known if known is None else pytest.approx(known))
    config = config_of(**WEIGHTED, head=dict(name="temperature"))
    config.trainer.update(epochs=1)
    train(config, tmp_path / "both")
    with pytest.raises(BadInput, match="config.head.name='temperature' replaces the last layer"):
        imbalance.load(tmp_path / "both", "cpu").predict(zeros, prior="uniform")
    with pytest.raises(
        BadInput, match="prior: 'natural' given, and the prior of this model's probabilities is not known"
    ):
        predict_files(
            run=str(tmp_path / "both"), files=["x"], output=str(tmp_path / "o.csv"), batch_size=1, device=None, prior="natural"
        )  # fmt: skip
    older = replace(model, about={key: value for key, value in model.about.items() if key != "prior"})
    with pytest.raises(BadInput, match="of an older version; train it again"):
        older.predict(zeros, prior="uniform")


@pytest.mark.parametrize(
    ("head", "debug", "of_training", "expected"),
    [
        ("none", False, SHARES, SHARES),
        ("crt", False, SHARES, "config.head.name='crt' replaces the last layer"),
        ("crt", True, SHARES, SHARES),  # a debug run fits no head
        ("crt", False, "a reason", "a reason"),
        ("none", False, "a reason", "a reason"),
    ],
)
def test_the_prior_of_a_model_is_that_of_its_training_unless_a_head_changes_it(
    monkeypatch, head, debug, of_training, expected
):
    prior = of_training if isinstance(of_training, str) else torch.tensor(of_training)
    monkeypatch.setattr(finish, "training_prior", lambda *_: prior)
    learner = SimpleNamespace(context=SimpleNamespace(class_counts=torch.tensor([80, 15, 5])), weights=None, loss=None)
    config = SimpleNamespace(head=SimpleNamespace(name=head), debug=debug)
    described = finish.describe_prior(SimpleNamespace(config=config, learner=learner))
    assert described["natural"] == SHARES.tolist()
    assert (described["reason"] if isinstance(expected, str) else described["model"]) == pytest.approx(expected)

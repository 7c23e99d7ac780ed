"""Pretrained encoders, made here in their real formats, and what models trained from them predict."""

import csv
import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.jobs import Job, at_call
from helpers.texts import assert_close, save_bert, text_config
from ml_collections import ConfigDict
from ml_collections.config_dict import create

import imbalance
from imbalance.config.experiment import validate
from imbalance.deploy.predict import predict_files
from imbalance.errors import BadInput, Interrupted
from imbalance.training import loop
from imbalance.utils.torchvision_import import import_torchvision

import_torchvision()  # which transformers imports


transformers = pytest.importorskip("transformers")


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


@pytest.fixture
def tuned(config, tmp_path):
    """Two epochs of a tiny BERT, fine-tuned as one does."""
    weights = str(save_bert(tmp_path / "bert"))
    config.data.update(tokenizer=weights, vocabulary=0, max_tokens=24)
    config.model = create(name="encoder", pretrained=weights, pool="pooler", dropout=0.0)
    schedule = create(name="linear", warmup_epochs=0.5)
    config.optim = create(
        name="adamw", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.1, decayed="weights", schedule=schedule
    )
    config.trainer.clip_norm = 1.0
    return config


def without_dropout(weights: str) -> None:
    about = json.loads(Path(weights, "config.json").read_text())
    about |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    Path(weights, "config.json").write_text(json.dumps(about))


def test_a_bert_begins_with_its_weights_and_tokens(tuned):
    """Against transformers' own model and tokenizer."""
    from accelerate import Accelerator

    from imbalance.training.learner import make_learner

    learner = make_learner(validate(tuned), Accelerator(cpu=True), Path("unused"))
    weights = tuned.model.pretrained
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
    rows = list(csv.DictReader(open(Path(tuned.data_dir) / "texts.csv")))
    split = learner.dataset.train
    texts = [rows[i]["text"] for i in split.indices[3:8].tolist()]
    theirs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=24)
    batch = split.inputs[3:8]
    assert batch["input_ids"].equal(theirs["input_ids"]) and batch["attention_mask"].equal(theirs["attention_mask"])
    model = transformers.AutoModel.from_pretrained(weights).double().eval()
    expected = model(**theirs).pooler_output
    torch.testing.assert_close(learner.network.eval().features(batch), expected, rtol=1e-9, atol=1e-9)
    decays = {p: group["weight_decay"] for group in learner.optimizer.param_groups for p in group["params"]}
    for name, parameter in learner.network.named_parameters():
        assert decays[parameter] == (0.0 if "bias" in name or "LayerNorm" in name else 0.1), name


def train(config, folder):
    loop.train(config, folder)
    raise SystemExit


def test_a_tuned_bert_is_resumed_to_the_bit_and_two_processes_are_one(tuned, tmp_path, monkeypatch):
    loop.train(tuned, tmp_path / "whole")  # with its own dropout
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(tuned, tmp_path / "stopped")
    loop.train(tuned, tmp_path / "stopped")
    assert_close(tmp_path / "stopped", tmp_path / "whole", 0)
    without_dropout(tuned.model.pretrained)
    job = Job(tuned, world=2, target=partial(train, tuned, tmp_path / "two"))
    loop.train(tuned, tmp_path / "one")
    parts = tuned.copy_and_resolve_references()
    parts.trainer.accumulation = 3
    loop.train(parts, tmp_path / "parts")
    assert job.wait(timeout=200) == [0, 0], job.stderr()
    for other in ("two", "parts"):
        assert_close(tmp_path / other, tmp_path / "one", 1e-7)  # through Adam's first, normalised steps


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_distilled_one_has_no_pooler_and_trains_in_bfloat16(tuned, tmp_path, pool):
    weights = str(save_bert(tmp_path / "distilled", kind="distilbert"))
    tuned.data.tokenizer = weights
    tuned.model.update(pretrained=weights, pool=pool)
    tuned.trainer.update(dtype="float32", mixed_precision="bf16", epochs=1)
    assert loop.train(tuned, tmp_path / "run")["status"] == "done"
    tuned.model.pool = "pooler"
    with pytest.raises(BadInput, match="config.model.pool: 'pooler' given; DistilBertModel has none"):
        loop.train(tuned, tmp_path / "refused")


def test_what_does_not_fit_the_weights_is_refused(tuned, tmp_path):
    tuned.model.pretrained = str(save_bert(tmp_path / "short", positions=8))
    with pytest.raises(
        BadInput,
        match=r"config.data.max_tokens: texts have up to \d+ tokens, and .* has 8 positions; use config.data.max_tokens=8",
    ):
        loop.train(tuned, tmp_path / "refused")
    tuned.data.update(tokenizer="words", vocabulary=60)
    with pytest.raises(
        BadInput,
        match=r"config.data.tokenizer: the tokenizer has 25 tokens, and .* has embeddings for 24; set config.data.tokenizer=",
    ):
        loop.train(tuned, tmp_path / "refused")
    tuned.model.pretrained = str(tmp_path / "nothing")
    with pytest.raises(BadInput, match="config.model.pretrained: .* cannot be loaded") as error:
        loop.train(tuned, tmp_path / "refused")
    assert "\n" not in str(error.value)


def test_trained_models_predict_texts_as_their_runs_did(tuned, tmp_path):
    """Without the data or the weights that they began with: from a list, one text, a table, and a file."""
    loop.train(tuned, tmp_path / "run")
    with np.load(tmp_path / "run" / "predictions" / "test.npz") as saved:
        logits, indices = torch.from_numpy(saved["logits"]), saved["indices"]
    rows = list(csv.DictReader(open(tmp_path / "texts.csv")))
    (tmp_path / "bert").rename(tmp_path / "gone")
    model = imbalance.load(tmp_path / "run", device="cpu")
    texts = [rows[i]["text"] for i in indices]
    found = model.predict(texts, batch_size=7)
    np.testing.assert_allclose(found.probabilities, logits.float().softmax(1), rtol=1e-5, atol=1e-6)
    assert model.predict(texts[0]).classes == found.classes[:1]
    assert model.predict({"text": np.array(texts, dtype=object)}).classes == found.classes
    for wrong in ([1, 2], [("a", "b")], {"other": np.array(["a"])}):
        with pytest.raises(BadInput):
            model.predict(wrong)
    with open(tmp_path / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([["more", "text"], *(["", text] for text in texts)])
    output = tmp_path / "predictions.csv"
    arguments = dict(output=str(output), batch_size=9, device="cpu")
    predict_files(run=str(tmp_path / "run"), files=[str(tmp_path / "new.csv")], **arguments)
    assert [row["class"] for row in csv.DictReader(open(output))] == found.classes
    model.export(tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="a model of texts can only be exported as .safetensors"):
        model.export(tmp_path / "model.onnx")


@pytest.mark.parametrize("pool", ["first", "mean", "pooler"])
def test_every_weight_gets_a_gradient(pool):
    from imbalance.models.encoder import Encoder

    shape = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)
    network = Encoder(transformers.BertModel(transformers.BertConfig(**shape)), pool, 0.0)
    tokens = torch.arange(12).view(2, 6)
    network({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())

"""Texts: listed, tokenised once, padded to the longest of a batch, trained on, predicted."""

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
from helpers.texts import assert_close, dataset_of, text_config
from ml_collections import ConfigDict
from ml_collections.config_dict import create

import imbalance
from imbalance.cli.main import call
from imbalance.config.experiment import validate
from imbalance.config.resolve import upgrade_saved_config
from imbalance.config.schema import build
from imbalance.data.identity import digest
from imbalance.data.texts import tokens as store
from imbalance.data.texts.tokens import bucketed
from imbalance.errors import BadInput, Diverged, Interrupted
from imbalance.metrics.selection import KEPT
from imbalance.models import MODELS
from imbalance.report.collect import collect
from imbalance.report.page.contents import page_contents
from imbalance.report.page.overview import Shared, overview
from imbalance.report.page.run_details import run_details
from imbalance.report.report import summarise, summarise_groups
from imbalance.sweep.runs import make_run
from imbalance.training import loop
from imbalance.training.stacked.train import in_common, train_stacked
from imbalance.training.state import forensics

pytest.importorskip("tokenizers")


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    return text_config(tmp_path)


def test_a_split_has_its_texts_labels_and_tokens(config):
    """Against the file, read by hand; the longest come first."""
    rows = list(csv.DictReader(open(Path(config.data_dir) / "texts.csv")))
    dataset = dataset_of(config)
    assert dataset.group_names == ("no, film", "no, shop", "yes, film", "yes, shop")
    assert sorted(np.concatenate([getattr(dataset, s).indices for s in ("train", "val", "test")])) == list(range(240))
    words = json.loads(dataset.preprocessing["tokenizer"])["model"]["vocab"]
    names = {number: word for word, number in words.items()}
    for split in (dataset.train, dataset.test):
        batch = split.inputs[:7]
        lengths = batch["attention_mask"].sum(1)
        assert lengths.tolist() == sorted(lengths.tolist(), reverse=True) and batch["input_ids"].shape[1] == lengths[0]
        for i, row in enumerate(split.indices[:7].tolist()):
            found = [names[t] for t in batch["input_ids"][i, : lengths[i]].tolist()]
            assert found == ["[CLS]", *rows[row]["text"].lower().replace("!", " !").split()]
            assert not batch["input_ids"][i, lengths[i] :].any()
            group = dataset.group_names[split.groups[i]]
            assert group == f"{rows[row]['target']}, {rows[row]['place']}"
            assert dataset.class_names[split.targets[i]] == rows[row]["target"]


def test_a_vocabulary_is_of_the_training_texts_alone(config):
    dataset = dataset_of(config)
    rows = list(csv.DictReader(open(Path(config.data_dir) / "texts.csv")))
    seen = {word.lower() for i in dataset.train.indices for word in rows[i]["text"].rstrip("!").split()}
    words = json.loads(dataset.preprocessing["tokenizer"])["model"]["vocab"].keys()
    assert words - {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "!"} == seen


def test_texts_are_tokenised_once_and_anew_where_they_change(config, monkeypatch):
    before = digest(dataset_of(config))
    with monkeypatch.context() as patch:
        patch.setattr(store, "encode", lambda *_: pytest.fail("tokenised again"))
        assert digest(dataset_of(config)) == before
    file = Path(config.data_dir) / "texts.csv"
    file.write_text(file.read_text().replace("lovely", "lively"))
    assert digest(dataset_of(config))["train"]["inputs"] != before["train"]["inputs"]
    for folder in Path(config.data_dir, "decoded").glob("tokens-*/"):
        (folder / "starts.npy").write_bytes((folder / "starts.npy").read_bytes()[:-8])
    with pytest.raises(BadInput, match="remove the folder .*, and the next run builds it again"):
        dataset_of(config)


def test_buckets_change_the_order_alone_and_waste_little():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 100, (5000,), generator=generator)
    order = torch.randperm(5000, generator=generator)[:4999]
    order = torch.cat([order, order[:30]])  # a sampler may draw an example twice
    ours = bucketed(order, lengths, 32, 50, torch.Generator().manual_seed(1))
    assert ours.equal(bucketed(order, lengths, 32, 50, torch.Generator().manual_seed(1)))
    assert not ours.equal(bucketed(order, lengths, 32, 50, torch.Generator().manual_seed(2)))
    assert ours.sort()[0].equal(order.sort()[0])
    assert ours[-(len(order) % 32) :].equal(order[-(len(order) % 32) :])

    def wasted(order):
        padded = sum(len(rows) * int(lengths[rows].max()) for rows in order.split(32))
        return 1 - int(lengths[order].sum()) / padded

    assert wasted(ours) < 0.1 < wasted(order)
    first = [int(lengths[rows].max()) for rows in ours.split(32)]
    assert first != sorted(first)  # the batches are shuffled


def test_what_is_no_use_is_refused_in_a_line(config, tmp_path):
    file = tmp_path / "texts.csv"
    content = file.read_text()
    cases = {
        "model": (dict(model=create(name="mlp", hidden=(4,))), "takes no texts, .* use one of bag_of_embeddings"),
        "mix": (dict(mix=create(name="mixup", alpha=0.2)), "config.mix.name: 'mixup' given; texts cannot be mixed"),
    }
    for changes, message in cases.values():
        other = config.copy_and_resolve_references()
        other.update(changes) if "mix" in changes else setattr(other, "model", changes["model"])
        if "mix" in changes:
            other.mix = changes["mix"]
        with pytest.raises(BadInput, match=message):
            loop.train(other, tmp_path / "refused")
    for key, value, message in (
        ("text", ("txt",), "no column 'txt'"),
        ("text", ("target",), "'target' is the target, which must not be an input"),
        ("text", ("text", "target"), "'target' is the target, which must not be an input"),
        ("text", ("place",), "'place' is an attribute, which must not be an input"),
        ("text", ("text", "text"), "'text' appears twice"),
        ("text", ("text", "place", "part"), "name one column of texts, or two for pairs"),
        ("vocabulary", 3, "'words' needs 5 or more"),
        ("max_tokens", 1, "must be 4 or more"),
        ("train_per_group", (1, 2), "2 numbers given; it needs one for each of 4 groups"),
        ("train_per_group", (1, 2, 3, 4000), "4,000 of group 'yes, shop' given; train has"),
        ("tokenizer", str(tmp_path), "config.data."),
        ("evaluated_by", ("place",), "the value of 'place' is not a number"),
    ):
        other = config.copy_and_resolve_references()
        other.data[key] = value
        with pytest.raises(BadInput, match=message) as error:
            dataset_of(other)
        assert "\n" not in str(error.value)
    other = config.copy_and_resolve_references()
    other.data.text, other.data.split = ("text", "part"), "part"
    with pytest.raises(BadInput, match="'part' is the split, which must not be an input"):
        dataset_of(other)
    file.write_text(content.replace("\r", "").replace("\n", "\n  ,yes,film,0,0\n", 1))
    with pytest.raises(BadInput, match="line 2: text is empty"):
        dataset_of(config)


def test_verify_lists_all_that_is_wrong_with_texts_or_with_their_store(config, tmp_path, capsys):
    file = tmp_path / "texts.csv"
    (tmp_path / "config.json").write_text(json.dumps(validate(config).to_dict()))
    verify = ["data", "verify", f"--config={tmp_path / 'config.json'}"]
    assert call(verify) == 0  # no store yet: makes it, to look for copies
    assert call(verify) == 0
    assert capsys.readouterr().out.endswith("text: 240 examples, 0 problems\n")
    (ids,) = tmp_path.glob("decoded/tokens-*/ids.npy")
    content = bytearray(ids.read_bytes())
    content[-4] ^= 1  # one token
    ids.write_bytes(content)
    assert call(verify) == 2
    out, err = capsys.readouterr()
    assert err == f"{ids.parent / 'store.json'}: ids does not match the files of the store; remove {ids.parent}\n"
    assert out == "text: 240 examples, 1 problem\n"
    file.write_text(file.read_text() + "a shop!,maybe,shop,0,0\n  ,yes,film,0,0\ntall,no,,0,0\n")
    assert call(verify) == 2
    out, err = capsys.readouterr()
    for line, what in ((242, "target is 'maybe', not one of no, yes"), (243, "text is empty"), (244, "place is ''")):
        assert f"line {line}: {what}" in err
    assert err.count("\n") == 3 and out.endswith(" 3 problems\n")


def test_evaluation_groups_of_own_columns_go_through_a_run(config, tmp_path):
    """Metrics, selection, predictions and counts of the two kinds of groups, against the file and the predictions."""
    config.data.evaluated_by = ("old", "tall")
    config.callbacks.update(select="best", monitor="val/worst_training_group_accuracy")
    summary = loop.train(config, tmp_path / "run")
    rows = list(csv.DictReader(open(tmp_path / "texts.csv")))
    with np.load(tmp_path / "run" / "predictions" / "test.npz") as saved:
        right = saved["logits"].argmax(1) == saved["targets"]
        members, indices = saved["members"], saved["indices"]
    names = ["old, no", "old, yes", "tall, no", "tall, yes"]
    expected = np.array(
        [[rows[i][who] == "1.0" and rows[i]["target"] == label for who, label in (n.split(", ") for n in names)]
         for i in indices]
    )  # fmt: skip
    assert (members == expected).all()
    assert list(summary["groups"]["test"].items()) == list(zip(names, expected.sum(0).tolist()))
    assert sum(summary["training_groups"]["test"].values()) == len(indices)
    accuracies = [right[expected[:, i]].mean() for i in range(4)]
    metrics = summary["metrics"]
    assert [metrics[f"test/group_accuracy/{name}"] for name in names] == pytest.approx(accuracies)
    assert metrics["test/worst_group_accuracy"] == pytest.approx(min(accuracies))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "worst of 4 evaluation groups" in log and "evaluation group" in log and "training group" in log


def test_tables_and_the_page_say_over_which_groups(config, tmp_path, capsys):
    config.data.evaluated_by = ("old", "tall", "place_is_shop")
    rows = list(csv.DictReader(open(tmp_path / "texts.csv")))
    with open(tmp_path / "texts.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, [*rows[0], "place_is_shop"])
        writer.writeheader()
        writer.writerows(row | {"place_is_shop": float(row["place"] == "shop")} for row in rows)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(validate(config).to_dict()))
    runs = [f"--config={path}", "--seeds=1", "--jobs=1", f"--work_dir={tmp_path / 'runs'}"]
    loop.train(*make_run(path, KEPT, 0, str(tmp_path / "runs")))
    assert call(["select", runs[-1]]) == 0
    assert "The groups are 6 evaluation groups.\n" in capsys.readouterr().out
    kept = ["--config.callbacks.keep_logits=True", "--config.trainer.eval_splits=val,test"]
    assert call(["compare", *runs, *kept, "--metric=test/worst_group_accuracy"]) == 0
    assert "| test/worst_group_accuracy over 6 evaluation groups, % |" in capsys.readouterr().out
    rows = collect(tmp_path / "runs")
    (row,) = summarise({("own", ""): rows}, ["worst_group_accuracy"])
    assert row["groups"] == "6 evaluation groups"
    contents, shared = page_contents(tmp_path / "runs", rows), Shared()
    found = overview(rows, contents, ["worst_group_accuracy"], shared)
    labels = {metric["name"]: metric["label"] for metric in found["metrics"]}
    assert labels["worst_group_accuracy"] == "worst group accuracy over 6 evaluation groups"
    assert labels["balanced_accuracy"] == "balanced accuracy"
    (of_run,), _ = run_details(tmp_path / "runs", rows, contents, found, shared, 0)
    predictions = tmp_path / "runs" / rows[0]["run"] / "predictions" / "test.npz"
    with np.load(predictions) as saved:
        wrong, members = saved["logits"].argmax(1) != saved["targets"], saved["members"]
    summary = json.loads((predictions.parent.parent / "summary.json").read_text())
    expected = dict(zip(summary["groups"]["test"], zip(members[wrong].sum(0), members.sum(0))))
    assert of_run["errors"] and all((e["wrong"], e["of"]) == expected[e["group"]] for e in of_run["errors"])
    assert len(summarise_groups({("own", ""): rows}, tmp_path / "runs")) == 8
    predictions.unlink()
    assert summarise_groups({("own", ""): rows}, tmp_path / "runs") == []


@pytest.mark.parametrize("name", ["bag_of_embeddings", "transformer"])
def test_padding_makes_no_difference(name):
    settings = dict(width=8) if name == "bag_of_embeddings" else dict(width=8, depth=2, heads=2, dropout=0.3)
    torch.manual_seed(0)
    model = build(MODELS, dict(name=name, **settings), vocabulary=20, num_classes=3).double().eval()
    ids = torch.randint(20, (4, 6))
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3, [1] + [0] * 5, [1] * 5 + [0]])
    whole = model({"input_ids": ids, "attention_mask": mask})
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = model({"input_ids": ids[i : i + 1, :length], "attention_mask": mask[i : i + 1, :length]})
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_many_runs_at_once_are_those_of_one(config, tmp_path):
    """Whose batches are of different lengths, as their seeds draw different texts."""
    configs = []
    for seed in range(3):
        one = config.copy_and_resolve_references()
        one.seed, one.data.vocabulary = seed, 20
        configs.append(one)
    assert len({in_common(validate(one)) for one in configs}) == 1
    train_stacked([(one, tmp_path / f"at once {i}") for i, one in enumerate(configs)])
    for i, one in enumerate(configs):
        loop.train(one, tmp_path / f"alone {i}")
        ours, theirs = (
            torch.load(tmp_path / f"{how} {i}" / "checkpoints" / "selected.pt") for how in ("at once", "alone")
        )
        for key in theirs:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-9, atol=1e-9)


# The contract of every method (tests/test_contract.py), on texts: those that read features, slopes, groups or another
# network, and the models.
METHODS = {
    "erm": {},
    "resampled": dict(sampler=dict(name="resample", by="group", exponent=1.0)),
    "group_dro": dict(objective=dict(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False)),
    "irm": dict(objective=dict(name="irm", environments="group", penalty=2.0, warmup_steps=4)),
    "coral": dict(objective=dict(name="coral", environments="group", penalty=2.0)),
    "lff": dict(objective=dict(name="lff", amplification=0.7, decay=0.5)),
    "supcon": dict(objective=dict(name="supcon", penalty=1.0, temperature=0.2, width=4, detached=False)),
    "dfr": dict(head=dict(name="dfr", inverse_penalties=(0.3, 1.0), fits=2)),
    "transformer": dict(model=dict(name="transformer", width=8, depth=2, heads=2, dropout=0.0)),
}


def with_method(config: ConfigDict, name: str) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.trainer.clip_norm, config.optim.lr = 0.5, 0.3
    for section, values in METHODS[name].items():
        config[section] = ConfigDict(values)
    return config


def train_all(config: ConfigDict, folder: Path) -> None:
    """Every method, one after another: the processes are started once."""
    for name in METHODS:
        loop.train(with_method(config, name), folder / name)
    raise SystemExit


def test_parts_processes_and_a_resumed_run_are_the_whole(config, tmp_path, monkeypatch):
    whole, by_two = tmp_path / "whole", tmp_path / "two"
    job = Job(config, world=2, target=partial(train_all, config, by_two))
    for name in METHODS:
        of_method = with_method(config, name)
        loop.train(of_method, whole / name)
        parts = of_method.copy_and_resolve_references()
        parts.trainer.accumulation = 3
        loop.train(parts, tmp_path / "parts" / name)
        assert_close(tmp_path / "parts" / name, whole / name, 1e-9)
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            at_call(patch, loop, "take_step", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
            loop.train(of_method, tmp_path / "stopped" / name)
        loop.train(of_method, tmp_path / "stopped" / name)
        assert_close(tmp_path / "stopped" / name, whole / name, 0)
    assert job.wait(timeout=300) == [0, 0], job.stderr()
    for name in METHODS:
        assert json.loads((by_two / name / "summary.json").read_text())["processes"] == 2
        assert_close(by_two / name, whole / name, 1e-9)


def test_a_dropped_out_transformer_in_parts_is_resumed_to_the_bit(config, tmp_path, monkeypatch):
    config.model = create(name="transformer", width=8, depth=1, heads=2, dropout=0.3)
    config.trainer.accumulation = 2
    loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_call(patch, loop, "take_step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path / "stopped")
    loop.train(config, tmp_path / "stopped")
    assert_close(tmp_path / "stopped", tmp_path / "whole", 0)


def test_a_run_that_diverges_names_its_step_and_can_be_replayed(config, tmp_path):
    config.optim.lr = 1e308
    with pytest.raises(Diverged, match="first non-finite: "):
        loop.train(config, tmp_path / "run")
    assert "the same, bit for bit" in forensics.replay(tmp_path / "run")


def test_rows_with_an_empty_text_are_refused_or_left_out_and_counted(config):
    """One empty text of 1,500 used to refuse them all, without a way out."""
    path = Path(config.data_dir) / "texts.csv"
    with open(path, newline="") as file:
        heading, *rows = csv.reader(file)
    column = heading.index("text")
    whole = dataset_of(config)
    for row in (3, 10):
        rows[row][column] = " " * row
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([heading, *rows])
    with pytest.raises(
        BadInput, match=r"texts.csv line 5: text is empty; set config.data.skip_empty=True .*\(and 1 more"
    ) as error:
        dataset_of(config)
    assert len(error.value.problems) == 2
    config.data.skip_empty = True
    left = dataset_of(config)
    note = f"2 of 240 rows have an empty text and are left out; the first is {path} line 5"
    assert left.notes[0] == note and note not in whole.notes
    kept = sorted(np.concatenate([getattr(left, name).indices for name in ("train", "val", "test")]).tolist())
    assert kept == [row for row in range(240) if row not in (3, 10)]


def test_a_text_config_of_an_older_version_refuses_empty_texts(config):
    saved = config.to_dict()
    del saved["data"]["skip_empty"]
    assert upgrade_saved_config(saved)["data"]["skip_empty"] is False
    assert upgrade_saved_config(saved | {"data": {"name": "folder"}})["data"]["reduce"] is False


def test_targets_have_the_type_by_which_older_runs_know_their_data(tmp_path):
    """The digest of the data, which a resumed run compares, reads the bytes of int64."""
    assert dataset_of(text_config(tmp_path)).train.targets.dtype == torch.int64


def test_examples_that_a_model_of_texts_cannot_take_are_one_line(config, tmp_path):
    model = imbalance.load(imbalance.run(config, directory=tmp_path / "run").directory)
    for examples, words in (
        (None, "^NoneType given; this model takes texts"),
        (b"text", "^bytes given; this model takes texts"),
        ({}, "no column 'text'"),
        (["good", 3], "^example 1 is int; this model takes texts"),
        ("\ud800", "^example 0 has half of a surrogate pair"),
        ({"text": ["good", "\udc00"]}, "^example 1 has half of a surrogate pair"),
    ):
        with pytest.raises(BadInput, match=words):
            model.predict(examples)

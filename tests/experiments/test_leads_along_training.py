"""The comparison of the two losses at equal shares of training after interpolation."""

import itertools

import numpy as np

from imbalance.experiments import early_stopping
from imbalance.experiments import leads_along_training as leads
from imbalance.metrics.clusters import contrast
from imbalance.report import kept_results

EPOCHS = range(10, 250, 10)


def row(loss, pair, seed, lr, first, test, val) -> dict[str, str]:
    """Return a row with made-up accuracies, functions of the epoch; `first` is the epoch of interpolation or None."""
    return {
        "name": f"cifar_pair_{loss}", "overrides": f"{pair}{lr}", "seed": str(seed), "data": f"{pair}{seed}",
        "classes": "+".join(pair), "exponent": "1", "lr": str(lr), "batch size": "32", "epochs": "240", "status": "done",
        "interpolation epoch": "" if first is None else str(first), "path: epochs": "|".join(map(str, EPOCHS)),
        "path: val balanced": "|".join(str(val(epoch)) for epoch in EPOCHS),
        "path: test balanced": "|".join(str(test(epoch)) for epoch in EPOCHS),
    }  # fmt: skip


def table_of(rows, folder) -> str:
    kept_results.add(leads.STUDY, folder, rows, packed=True)
    return leads.leads_table(folder)


def test_a_run_reaches_a_share_at_the_first_evaluated_epoch_with_as_many_epochs_after_interpolation():
    for first in (1, 5, 40, 41, 48, 49, 121, 200):
        run = row("ce", ("cat", "dog"), 0, 0.1, first, lambda e: 0.5, lambda e: 0.5)
        for share in leads.SHARES:
            reached = [epoch for epoch in EPOCHS if len(range(first, epoch + 1)) / epoch >= share]
            assert leads.epoch_of_share(run, share) == (reached[0] if reached else None), (first, share)
    assert leads.epoch_of_share(row("ce", ("cat", "dog"), 0, 0.1, None, lambda e: 0.5, lambda e: 0.5), 0.5) is None


def test_val_chooses_the_learning_rate_among_those_at_which_every_seed_reaches_the_share(tmp_path):
    """Poly leads by 2 points at the chosen learning rates; the better rate on val counts only if both seeds reach 80 %."""
    rng = np.random.default_rng(0)
    rows, expected = [], {}
    classes = leads.CLASSES["cifar"][:4]
    for pair in itertools.combinations(classes, 2):
        for seed in range(2):
            noise = round(rng.uniform(0, 0.01), 4)
            expected[(*pair, seed)] = 0.02 + noise
            rows += [
                row("ce", pair, seed, 0.001, 20, lambda e: round(0.6 + e / 10_000, 4), lambda e: 0.70),
                row("ce", pair, seed, 0.003, 20 if seed else None, lambda e: 0.9, lambda e: 0.80),  # seed 0 never
                row("poly", pair, seed, 0.001, 20, lambda e, n=noise: round(0.62 + e / 10_000 + n, 4), lambda e: 0.70),
                row("poly", pair, seed, 0.003, 20, lambda e: 0.9, lambda e: 0.69),
            ]
    kept_results.add(leads.STUDY, tmp_path, rows, packed=True)
    kept = kept_results.read(leads.STUDY, tmp_path)
    found = leads.choices(kept, 1.0, lambda r: leads.epoch_of_share(r, 0.8))
    assert set(found) == set(itertools.combinations(classes, 2))
    numbers, values = leads.leads(found, "cifar")
    for (first, second), of_pair in zip(numbers, values):
        pair = leads.CLASSES["cifar"][first], leads.CLASSES["cifar"][second]
        np.testing.assert_allclose(of_pair, [[expected[(*pair, seed)] for seed in (0, 1)]], atol=1e-9)
    assert {(choice.rate, *choice.epochs) for by_loss in found.values() for choice in by_loss.values()} == {
        (0.001, 100, 100)
    }
    result = contrast(values, numbers)
    table = leads.leads_table(tmp_path)
    assert f"| CIFAR-10 | first class | IW^1 | 80% of training after interpolation | 6 | 2 | {result.points()}" in table
    early = 100 * (np.mean(list(expected.values())) + 0.601 - 0.9)  # epoch 10, where cross-entropy at 0.003 counts
    assert f"| IW^1 | the best epoch on val (early-stopped) | 6 | 2 | {early:.1f} ±" in table
    # Early-stopped, val takes rates that are no ends, and the first evaluated epoch. Without the only rate of cross-entropy that
    # reaches 80 % on three of the pairs, these pairs have no lead.
    assert table.count("| 0, 0 | 0%, 0% |") and "| 100%, 100% |" in table
    less = [
        r
        for r in kept
        if not (r["name"] == "cifar_pair_ce" and r["lr"] == "0.001" and r["classes"].startswith(classes[0]))
    ]
    assert "| IW^1 | 80% of training after interpolation | 3 | 2 |" in table_of(less, tmp_path / "less")
    assert "| 3, 0 |" in table_of(less, tmp_path / "less")


def test_swapped_roles_and_fashion_have_rows_of_their_own_and_both_roles_count_their_shared_seeds(tmp_path):
    """Poly leads by 1 point as listed and by 3 swapped, at seeds 0 to 2 and 0 to 1; seed 2 of one swapped pair is incomplete."""
    classes, rows = leads.CLASSES["fashion"], []
    for (first, second), seed in itertools.product(itertools.combinations(classes[:4], 2), range(3)):
        for pair, lead in (((first, second), 0.01), ((second, first), 0.03)):
            noise = round(0.001 * seed + 0.002 * classes.index(first), 4)
            for loss, gain in (("ce", 0.0), ("poly", lead + noise)):
                if lead == 0.03 and seed == 2 and first == classes[0] and loss == "poly":
                    continue  # not trained yet
                accuracy = round(0.6 + gain, 4)
                made = row(loss, pair, seed, 0.001, 20, lambda e, a=accuracy: a, lambda e: 0.7)
                rows.append(made | {"name": f"fashion_pair_{loss}"})
    kept_results.add(leads.STUDY, tmp_path, rows, packed=True)
    kept = kept_results.read(leads.STUDY, tmp_path)
    parts = leads.by_roles(kept, "fashion")
    assert {name: len(rows) for name, rows in parts.items()} == {"as_listed": 36, "swapped": 24, "both": 48}
    values = {}
    for name, rows in parts.items():
        numbers, values[name] = leads.leads(leads.choices(rows, 1.0, lambda r: leads.epoch_of_share(r, 0.5)), "fashion")
        assert numbers == list(itertools.combinations(range(4), 2))
    assert {name: v.shape for name, v in values.items()} == {
        "as_listed": (6, 1, 3),
        "swapped": (6, 1, 2),
        "both": (6, 2, 2),
    }
    noise = np.array([[0.001 * seed + 0.002 * min(pair) for seed in range(3)] for pair in numbers])
    np.testing.assert_allclose(values["as_listed"][:, 0], 0.01 + noise, atol=1e-9)
    np.testing.assert_allclose(values["both"].mean(1), 0.02 + noise[:, :2], atol=1e-9)
    assert not leads.by_roles(kept, "cifar")
    table = leads.leads_table(tmp_path)
    assert "| Fashion-MNIST | either, averaged | IW^1 | 50% of training after interpolation | 6 | 2 | 2." in table
    assert "| Fashion-MNIST | second class | 2 | IW^1 | 3." in leads.leads_summary(tmp_path)


def test_early_stopped_losses_choose_among_the_same_rates_and_their_ends_are_told(tmp_path):
    """Poly leads by 2 points at the rates that val prefers: the middle one for cross-entropy, the smallest one for poly."""
    rows, epochs = [], range(4, 104, 4)
    for pair, seed in itertools.product(itertools.combinations(leads.CLASSES["cifar"][:4], 2), range(3)):
        for loss, preferred, test in (("ce", 0.0003, 0.70), ("poly", 0.0001, 0.72)):
            for rate in early_stopping.RATES:
                best = 4 if loss == "ce" and seed == 0 else 40  # the best epoch on val
                val = [0.8 * (rate == preferred) + 0.1 * (epoch == best) for epoch in epochs]
                cells = row(loss, pair, seed, rate, None, lambda e: 0, lambda e: 0)
                rows.append(cells | {
                    "epochs": "100", "path: epochs": "|".join(map(str, epochs)), "path: val balanced": "|".join(map(str, val)),
                    "path: test balanced": "|".join(str(test if epoch == best else 0.5) for epoch in epochs),
                })  # fmt: skip
    kept_results.add(early_stopping.STUDY, tmp_path, rows, packed=True)
    table = early_stopping.early_table(tmp_path)
    assert "| CIFAR-10 | IW^1 | 6 | 3 | 2.0 ± 0.0" in table
    assert "| cross-entropy | 0%, 100%, 0% | 33%, 0% |" in table and "| poly | 100%, 0%, 0% | 0%, 0% |" in table
    (first, *_) = early_stopping.batches({}, "cifar", 2, str(tmp_path))
    assert len(first) == 6 and {run.config.optim.lr for run in first} == set(early_stopping.RATES)
    assert {run.config.trainer.eval_every for run in first} == {4} and {
        run.config.weights.exponent for run in first
    } == {1.0}


def test_leads_by_learning_rate_stop_at_epoch_80_and_take_the_best_epoch_on_val(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [("airplane", "automobile"), ("airplane", "bird"), ("automobile", "bird")]
    gain = {(pair, seed): rng.uniform(0, 0.1) for pair in pairs for seed in range(2)}
    rows = [
        row(loss, pair, seed, lr, None, lambda e, g=g: (0.9 if e > 80 else 0.5 + g if e == 80 else 0.4 + g if e == 30 else 0.1), lambda e: 0.9 - abs(e - 30) / 1000)
        for pair in pairs for seed in range(2)
        for loss, lr, g in (("poly", 0.001, gain[pair, seed]), ("ce", 0.001, 0.0), ("ce", 0.003, 0.01), ("poly", 0.003, 9.0))
    ]  # fmt: skip
    kept_results.add(leads.STUDY, tmp_path, rows, packed=True)
    gains, numbers = np.array([[gain[pair, seed] for seed in range(2)] for pair in pairs]), [(0, 1), (0, 2), (1, 2)]
    lines = [
        [rate, *(contrast(gains + shift, numbers).points() for shift in shifts)]
        for rate, shifts in (("0.001", (0, 0.1, 0)), ("0.003", (-0.01, 0.09, -0.01)), ("val's choice", (0, 0.1, 0)))
    ]
    assert leads.rates_table(tmp_path).splitlines()[2:] == [f"| IW^1 | {' | '.join(line)} |" for line in lines]


def test_the_second_class_has_more_images_with_swapped_roles(tmp_path):
    listed, swapped = (next(iter(leads.batches({}, "fashion", roles, 1, str(tmp_path)))) for roles in leads.ROLES)
    assert [run.config.data.classes for run in (listed[0], swapped[0])] == [
        ("T-shirt", "trouser"),
        ("trouser", "T-shirt"),
    ]
    assert {run.config.optim.lr for run in swapped} == set(leads.RATES["ce"]) and swapped[
        0
    ].config.trainer.epochs == 240


def test_a_row_has_the_accuracies_of_every_evaluation(tmp_path):
    lines = [{"epoch": epoch} | {f"{split}/{name}": 0.1 * epoch for split in ("val", "test")
              for name in ("accuracy", "balanced_accuracy", "worst_group_accuracy")} for epoch in (2, 4)]  # fmt: skip
    cells = kept_results.selected_by_rules(lines)
    assert cells["path: epochs"] == "2|4" and cells["path: test balanced"] == "0.2|0.4" == cells["path: val balanced"]

"""Made-up rows of results of the comparison of every method on real data."""


def row(method, exponent, seed, val, test, name="dominoes", status="done", balanced=(0.5, 0.5)) -> dict[str, str]:
    """Return a row with made-up results: the values of both rules on val and test."""
    scores = {
        "worst group: val": val, "worst group: worst group": test, "balanced: val": balanced[0], "balanced: worst group": balanced[1],
        "balanced: balanced": balanced[1],
    }  # fmt: skip
    about = dict(
        name="drawn_erm", overrides=f"{name}{method}{exponent}", data=str(seed), set=name, method=method, status=status
    )
    cells = {key: str(value) for key, value in scores.items()} if status == "done" else dict.fromkeys(scores, "")
    return {**about, "seed": str(seed), "exponent": str(exponent), **cells}


def rows_at(val_of_exponent, exponents, seeds=4, method="erm") -> list[dict[str, str]]:
    """Return rows of each exponent and seed, with the value on val that a function of the exponent returns."""
    return [row(method, e, seed, val_of_exponent(e), 0.5) for e in exponents for seed in range(seeds)]

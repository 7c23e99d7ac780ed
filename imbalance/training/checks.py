"""What only the data can show of a config, before anything is trained."""

from pathlib import Path

from imbalance.config.experiment import Experiment
from imbalance.config.metric_names import check_labels
from imbalance.data import Dataset
from imbalance.errors import BadInput


def check_data(config: Experiment, dataset: Dataset) -> None:
    """Raise `BadInput` for a config whose metrics or parts of a batch the data do not have."""
    for key, name in (("score", config.score), ("callbacks.monitor", config.callbacks.monitor)):
        evaluated = dataset.eval_dataset
        check_labels(key, name, evaluated.class_names, evaluated.group_names, evaluated.evaluation_names)
    if config.trainer.accumulation > len(dataset.train):
        raise BadInput(
            f"config.trainer.accumulation: {config.trainer.accumulation} given; train has {len(dataset.train)} examples, "
            "and no part of a batch less than one"
        )


def dry_run(config: Experiment, directory: Path) -> None:
    """Raise what a run of `config` in `directory` would raise before its first step, and write nothing there."""
    from imbalance.training.distributed.processes import start_accelerator
    from imbalance.training.learner import first_run, make_learner
    from imbalance.training.logging.run_log import check_directory_config
    from imbalance.training.logging.trackers import check

    accelerator = start_accelerator(config)
    check(config)
    check_directory_config(config, directory)
    # Of two stages the first, without which the second cannot be made.
    learner = make_learner(first_run(config) or config, accelerator, directory)
    check_data(config, learner.dataset)
    learner.weights(0), learner.sampler(0)

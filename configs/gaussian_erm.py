"""Gaussian mixture, 200 against 20 examples in 500 dimensions: plain cross-entropy.

A linear model on separable data: descent on cross-entropy tends to the maximum-margin direction (Soudry et al., JMLR
2018). Reaches a balanced error of about 16 %.
The objective is the logarithm of the mean loss, for the limit would otherwise take millions of steps. A few seconds.

    python main.py --config=configs/gaussian_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # not read: the data are drawn
    config.score = "val/balanced_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="gaussian",
        dim=500,
        means=((3.0,), (0.0, 3.0)),  # leading coordinates of each class's mean; orthogonal
        scale=1.0,
        radius=23.0,  # of truncation, in standard deviations from the mean; 0: none
        train_per_class=(200, 20),
        val_per_class=(2000, 2000),
        test_per_class=(5000, 5000),
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="log_average")  # reaches the limit direction in few steps
    config.model = create(name="linear", init="zeros")
    config.optim = create(name="sgd", lr=0.005, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=400,
        batch_size=220,  # the full batch
        accumulation=1,  # parts that a batch is computed in, for want of memory
        clip_norm=0.0,  # that the gradient of a batch is scaled down to; 0: never
        eval_batch_size=10000,
        eval_every=100,  # epochs
        eval_splits=("val",),  # test is read once, at the end; add "test" to follow it
        dtype="float64",
        mixed_precision="no",  # "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what of float32 a GPU rounds to 10 bits: "none", "convolutions", "all"
        channels_last=False,
        images_on_device=False,  # all decoded files, not a batch of them at a time; other data always are
        compile="no",  # "default", or for small models on a GPU "reduce-overhead": CUDA graphs
        deterministic=False,  # the same bits on a GPU too
    )
    config.callbacks = create(
        select="last",  # or "best": by the monitored metric
        monitor="val/balanced_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

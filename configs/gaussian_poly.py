"""Gaussian mixture, 200 against 20 examples in 500 dimensions: the polynomial loss under importance weights.

The claim of Wang et al., "Is Importance Weighting Incompatible with Interpolating Classifiers?", ICLR 2022: under a
polynomial tail weights do change the limit. Reaches a balanced error of about 11 %, where gaussian_ce has 16 %.

The objective is the logarithm of the mean loss, for the limit would otherwise take millions of steps. A run takes a few
seconds.

    python main.py --config=configs/gaussian_poly.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # not read: the data are drawn
    config.score = "val/balanced_accuracy"  # the metric that a run returns, of the selected weights

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
    config.weights = create(name="importance", by="class", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="poly", alpha=1.0, left="logistic")
    config.objective = create(name="log_average")  # reaches the limit direction in few steps
    config.model = create(name="linear", init="zeros")
    config.optim = create(name="sgd", lr=0.005, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=400,
        batch_size=220,  # the full batch
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=10000,
        eval_every=100,  # epochs
        eval_splits=("val",),  # test is evaluated once, at the end; add "test" to evaluate it each time
        dtype="float64",
        mixed_precision="no",  # or "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what a GPU computes with 10 bits of mantissa: "none", "convolutions", "all"
        channels_last=False,
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; "reduce-overhead" (CUDA graphs) suits small models on a GPU
        deterministic=False,  # True: the same bits in every run on a GPU too, at some cost in speed
    )
    config.callbacks = create(
        select="last",  # or "best": by the monitored metric
        monitor="val/balanced_accuracy",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.

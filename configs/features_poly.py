"""Features of a network that stays as it is: the polynomially-tailed loss under importance weights of the groups.

The loss of Wang et al., "Is Importance Weighting Incompatible with Interpolating Classifiers?", ICLR 2022.

The network is not trained: `imbalance features` has kept what it makes of every example, and a linear layer on that
takes seconds.

    imbalance features --config=waterbirds_erm --output=data/features
    python main.py --config=configs/features_poly.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the folder
    config.score = "val/worst_group_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="features",
        folder="features",  # in data_dir, that `imbalance features --output=…` made
        standardise=True,  # each to mean 0, deviation 1 on train
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="group", exponent=1.5)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="poly", alpha=1.0, left="logistic")
    config.objective = create(name="average")
    config.model = create(name="linear", init="zeros")  # or "mlp", with hidden=(256,)
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-3, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=20,
        batch_size=128,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=4096,
        eval_every=1,  # epochs
        eval_splits=("val",),  # test is evaluated once, at the end; add "test" to evaluate it each time
        dtype="float32",
        mixed_precision="no",  # or "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what a GPU computes with 10 bits of mantissa: "none", "convolutions", "all"
        channels_last=False,
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; "reduce-overhead" (CUDA graphs) suits small models on a GPU
        deterministic=False,  # True: the same bits in every run on a GPU too, at some cost in speed
    )
    config.callbacks = create(
        select="best",  # by the monitored metric; "last": the weights of the last epoch
        monitor="val/worst_group_accuracy",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.

"""Features of a network that stays as it is: deep feature reweighting.

Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR
2023: val's groups fit the layer, so that val's metrics are training metrics. Here the network is not the run's own
but that of the features, and the epochs before count for nothing but the log. The network is not trained: `imbalance
features` has kept what it makes of every example, and a linear layer on that takes seconds.

    imbalance features --config=waterbirds_erm --output=data/features
    python main.py --config=configs/features_dfr.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the folder
    config.score = "val/worst_group_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="features",
        folder="features",  # in data_dir, that `imbalance features --output=…` made
        standardise=True,  # each to mean 0, deviation 1 on train
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="linear", init="zeros")  # or "mlp", with hidden=(256,)
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-3, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="dfr", inverse_penalties=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), fits=20)

    config.trainer = create(
        epochs=1,
        batch_size=128,
        accumulation=1,  # parts that a batch is computed in, for want of memory
        clip_norm=0.0,  # that the gradient of a batch is scaled down to; 0: never
        eval_batch_size=4096,
        eval_every=1,  # epochs
        eval_splits=("val",),  # test is read once, at the end; add "test" to follow it
        dtype="float32",
        mixed_precision="no",  # "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what of float32 a GPU rounds to 10 bits: "none", "convolutions", "all"
        channels_last=False,
        images_on_device=False,  # all decoded files, not a batch of them at a time; other data always are
        compile="no",  # "default", or for small models on a GPU "reduce-overhead": CUDA graphs
        deterministic=False,  # the same bits on a GPU too
    )
    config.callbacks = create(
        select="best",  # by the monitored metric; "last": the weights of the last epoch
        monitor="val/worst_group_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

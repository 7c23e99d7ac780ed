"""Your own columns or arrays: cross-entropy.

Any .csv or .parquet file of numbers and categories, or .npz file of arrays. A perceptron on a CPU takes seconds for
thousands of rows; what it reaches depends on the data.

    python main.py --config=configs/arrays_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the file
    config.score = "val/worst_group_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="arrays",
        file="table.csv",  # in data_dir, or .parquet, .npz, a folder of .npy files
        delimiter=",",
        numeric=(),  # columns that the model sees; none of either kind: all beside target, groups and split
        categorical=(),
        missing=(),  # texts that mean a missing value, such as ("", "?")
        target="target",  # the column of the classes
        classes=("0", "1"),  # its values
        groups=(),  # columns whose combinations are the groups, such as ("sex", "target"); (): the classes
        split="",  # the column that says train, val or test; "": none
        val_fraction=0.1,  # of every group; 0.0 for a split that the file has
        test_fraction=0.2,
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="mlp", hidden=(64, 64))
    config.optim = create(name="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=20,
        batch_size=256,
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

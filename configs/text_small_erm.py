"""Your own texts: cross-entropy.

Any .csv or .parquet file of texts and classes. A bag of embeddings, learnt from nothing, takes a CPU a minute for six
thousand sentences; what it reaches depends on the data.

    pip install -c constraints.txt -e '.[text]'
    python main.py --config=configs/text_small_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the file
    config.score = "val/worst_group_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="text",
        file="texts.csv",  # in data_dir, or .csv.gz, .parquet
        delimiter=",",
        text=("text",),  # the column that the model sees; two for pairs of texts
        target="target",  # the column of the classes
        classes=("negative", "positive"),  # its values
        groups=(),  # columns whose combinations are the groups, such as ("target", "domain"); (): the classes
        evaluated_by=(),  # columns of numbers, each of which, at 0.5 or more, is an evaluation group with each class
        split="",  # the column that says train, val or test; "": none
        val_fraction=0.1,  # of every group; 0.0 for a split that the file has
        test_fraction=0.2,
        train_per_group=(),  # how many of each group to train on; (): all
        tokenizer="words",  # or "pieces", learnt on train; or pretrained weights, by name or folder
        vocabulary=10000,  # learnt tokens; 0 for a tokenizer that has its own
        max_tokens=256,  # of a text
        bucket=50,  # batches that are sorted by length together; 0: none
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="bag_of_embeddings", width=64)
    config.optim = create(name="sgd", lr=1.0, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=10,
        batch_size=64,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=512,
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

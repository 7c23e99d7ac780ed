"""Your own images: cross-entropy under importance weights of the groups; small, on a CPU and from scratch.

LeNet-5 needs no pretrained weights: a run of 600 images in train takes 12 s of one core. On pullovers against coats
(700 and 160 of Fashion-MNIST's images) it reaches 81 % in the worse class of test. `resnet20` costs over ten times as
much; for photographs, a GPU and `table_ce`, which starts from ImageNet, reach more.

Any CSV or Parquet file of paths, classes and attributes beside a folder of images; `imbalance data verify` with this
config says what is wrong with them. Cost and what it reaches depend on the data.

    python main.py --config=configs/table_small.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the table and the folder of images
    config.score = "val/worst_group_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="table",
        file="table.csv",  # in data_dir, or .parquet
        delimiter=",",
        folder="images",  # in data_dir: what the paths are relative to
        path="path",  # the column of the images' paths
        target="target",  # the column of the classes
        classes=("negative", "positive"),  # its values
        groups=(),  # columns whose combinations are the groups, such as ("target", "hospital"); (): the classes
        split="",  # the column that says train, val or test; "": none
        val_fraction=0.1,  # of every group; 0.0 for a split that the table has
        test_fraction=0.2,
        mode="RGB",  # of the images; "L": grey
        convert=True,  # images of other modes too (grey, palette, transparency)
        resize=32,  # the shorter side
        size=32,  # cropped from the middle
        augment=("flip", "pad_crop"),
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="group", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="lenet")
    config.optim = create(name="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=30,
        batch_size=64,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=128,
        eval_every=1,  # epochs
        eval_splits=("val",),  # test is evaluated once, at the end; add "test" to evaluate it each time
        dtype="float32",
        mixed_precision="no",  # or "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what a GPU computes with 10 bits of mantissa: "none", "convolutions", "all"
        channels_last=True,
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

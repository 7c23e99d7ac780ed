"""Your own images, in a folder for each class: cross-entropy under importance weights.

Any folder that torchvision's ImageFolder takes, with or without folders train, val and test; `python -m
imbalance.data verify` with this config says what is wrong with it. Cost and what it reaches depend on the data.

    python main.py --config=configs/folder_ce.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds the folder
    config.score = "val/balanced_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="folder",
        folder="images",  # in data_dir: a folder for each class, or such folders in train, val and test
        val_fraction=0.1,  # of every class; 0.0 for a split with a folder of its own
        test_fraction=0.2,
        mode="RGB",  # of the images; "L": grey
        convert=False,  # True: images of other modes too (grey, palette, transparency)
        resize=256,  # the shorter side
        size=224,  # cropped from the middle
        augment=("flip", "random_resized_crop"),
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="class", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="resnet18", pretrained="imagenet", frozen=False)
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=30,
        batch_size=64,
        accumulation=1,  # parts that a batch is computed in, for want of memory
        clip_norm=0.0,  # that the gradient of a batch is scaled down to; 0: never
        eval_batch_size=128,
        eval_every=1,  # epochs
        eval_splits=("val",),  # test is read once, at the end; add "test" to follow it
        dtype="float32",
        mixed_precision="no",  # "bf16", and on a GPU "fp16"
        tf32="convolutions",  # what of float32 a GPU rounds to 10 bits: "none", "convolutions", "all"
        channels_last=True,
        images_on_device=False,  # all decoded files, not a batch of them at a time; other data always are
        compile="no",  # "default", or for small models on a GPU "reduce-overhead": CUDA graphs
        deterministic=False,  # the same bits on a GPU too
    )
    config.callbacks = create(
        select="best",  # by the monitored metric; "last": the weights of the last epoch
        monitor="val/balanced_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

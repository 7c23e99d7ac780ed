"""CIFAR-10 cat against dog, 250 to 25: the polynomial loss under importance weights,
LeNet.

A small stand-in for the CIFAR-10 experiment of Wang et al. (ICLR 2022), for comparisons over many pairs, seeds and
rates: see `experiments.pairs` and `experiments.protocol`, which override classes, exponent, rate and length.

    python main.py --config=configs/cifar_pair_lenet_poly.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds cifar-10-batches-py/
    config.score = "val/balanced_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="cifar10",
        classes=("cat", "dog"),  # the largest class first
        imbalance="step",  # "none", "exp" or "step"
        imbalance_ratio=10.0,  # largest over smallest class
        total=550,  # examples of train and val together; 0: as many as the ratio allows
        val_fraction=0.5,
        draw="stratified",  # "stratified": anew at every seed; "published": the images of Wang et al., if total is 0
        download=False,  # fetch the files into data_dir if they are missing (170 MB)
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="class", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="poly", alpha=1.0, left="logistic")
    config.objective = create(name="average")
    config.model = create(name="lenet")
    config.optim = create(name="sgd", lr=0.01, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=80,
        batch_size=32,
        accumulation=1,  # parts that a batch is computed in, for want of memory
        clip_norm=0.0,  # that the gradient of a batch is scaled down to; 0: never
        eval_batch_size=512,
        eval_every=10,  # epochs
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
        select="last",  # or "best": by the monitored metric
        monitor="val/balanced_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

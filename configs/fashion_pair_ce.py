"""Fashion-MNIST T-shirt against shirt, 250 to 25: cross-entropy under importance weights.

A perceptron with one hidden layer of 32. A small stand-in for the CIFAR-10 experiment of Wang et al. (ICLR 2022), for
comparisons over many pairs, seeds and rates: see `experiments.pairs` and `experiments.protocol`, which override
classes, exponent, rate and length.

    python main.py --config=configs/fashion_pair_ce.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds FashionMNIST/raw; imbalance data download fashion fetches it
    config.score = "val/balanced_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="fashion",
        classes=("T-shirt", "shirt"),  # the largest class first
        imbalance="step",  # "none", "exp" or "step"
        imbalance_ratio=10.0,  # largest over smallest class
        total=550,  # examples of train, and of val where it comes from train; 0: as many as the ratio allows
        val_from="train",  # which leaves test whole; "test": train keeps the published counts
        val_fraction=0.5,  # of that split
        augment=(),
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="class", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="mlp", hidden=(32,))
    config.optim = create(name="sgd", lr=0.01, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=100,
        batch_size=32,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=512,
        eval_every=10,  # epochs
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

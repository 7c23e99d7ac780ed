"""CIFAR-10 cats against dogs, 3,990 to 410: group DRO over the classes.

The setting of "Is Importance Weighting Incompatible with Interpolating Classifiers?" (Wang et al., ICLR 2022, section
5), whose code has this configuration; it reports no figure for it. Class labels are the groups of training; none
select. 400 epochs take close to three hours on two cores, and half of that with
--config.trainer.mixed_precision=bf16 --config.trainer.channels_last=True where the processor computes in bf16.

    python main.py --config=configs/cifar_dro.py --config.data.download=True
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
        total=0,  # examples of train and val together; 0: as many as the ratio allows
        val_fraction=0.2,
        draw="published",  # "stratified": anew at every seed; "published": the images of Wang et al.
        download=False,  # fetch the files into data_dir if they are missing (170 MB)
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="group_dro", step_size=0.01, size_adjustment=0.0)
    config.model = create(name="convnet")
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=400,
        batch_size=64,
        accumulation=1,  # parts that a batch is computed in, for want of memory
        clip_norm=0.0,  # that the gradient of a batch is scaled down to; 0: never
        eval_batch_size=512,
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
        select="last",  # or "best": by the monitored metric
        monitor="val/balanced_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

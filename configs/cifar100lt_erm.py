"""CIFAR-100-LT, imbalance 100: cross-entropy.

The baseline of Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019,
which reports 38.3 % test accuracy. From their code: counts, network, learning rate and its drops, momentum, weight
decay, batch size, augmentation. Unlike it: the last epoch is tested, where the paper's figure is the best test epoch;
val is a tenth of the test images, so that train has the published counts; warm-up rises every step, there every epoch;
inputs are divided by the pixels' standard deviation, there by (0.2023, 0.1994, 0.2010).

ResNet-32, 200 epochs of 10,847 images: for a GPU; not yet run here.

    python main.py --config=configs/cifar100lt_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds cifar-100; imbalance data download cifar100 fetches it
    config.score = "val/balanced_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="cifar100lt",
        imbalance="exp",  # "none", "exp" or "step"
        imbalance_ratio=100.0,  # largest over smallest class
        val_from="test",  # train keeps the published counts; "train" leaves test whole
        val_fraction=0.1,  # of that split
        augment=("flip", "pad_crop"),
        download=False,  # True fetches the files if they are missing (170 MB)
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="resnet32", frozen=False)
    config.optim = create(name="sgd", lr=0.1, momentum=0.9, weight_decay=2e-4, decayed="all")
    config.optim.schedule = create(name="step", milestones=(160, 180), factor=0.01, warmup_epochs=5.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=200,
        batch_size=128,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=512,
        eval_every=10,  # epochs
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

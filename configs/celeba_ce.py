"""CelebA, blond hair: cross-entropy under importance weights.

Wang et al., "Is Importance Weighting Incompatible with Interpolating Classifiers?", ICLR 2022, section 5: 79.3 ± 1.2 %
group-balanced test accuracy at the last epoch, no better than without weights.

2 % of the training images. ResNet-50 from ImageNet weights, 50 epochs of 3,255 images: for a GPU; not yet run here. Get
the images as `imbalance data download celeba` says.

    python main.py --config=configs/celeba_ce.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"
    config.score = "val/group_balanced_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="celeba",
        target="Blond_Hair",
        confounders=("Male",),  # with the target they make the groups; () for none
        train_fraction=0.02,  # of train: 1446, 1308, 468 and 33 examples of the groups
        val_fraction=0.1,  # of every group
        test="balanced",  # 180 of every group, as in the paper; "full" for all of it
        subset_seed=0,  # of these draws: the same images under every seed
        size=224,  # the middle 178×178, resized
        augment=(),  # or "flip", "random_resized_crop"
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="group", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="resnet50", pretrained="imagenet", frozen=False)
    config.optim = create(name="sgd", lr=4e-4, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=50,
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
        select="last",  # or "best": by the monitored metric
        monitor="val/group_balanced_accuracy",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.

"""CelebA, blond hair: the polynomial loss, tuned, on 2 % of the training images.

Wang et al., "Is Importance Weighting Incompatible with Interpolating Classifiers?", ICLR 2022, section 5: 82.4 ± 0.8
% group-balanced test accuracy (± standard deviation). Its row "Poly+IW": α = 2, weights to the power 2.5. Groups
weigh training; none select. ResNet-50 from ImageNet weights, 200 epochs of 3,255 images: for a GPU; not yet run here.
Get the images as `imbalance data download celeba` says.

    python main.py --config=configs/celeba_poly_exponent25.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"
    config.score = "val/group_balanced_accuracy"  # what a run returns, measured on the selected weights

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
    config.weights = create(name="importance", by="group", exponent=2.5)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="poly", alpha=2.0, left="logistic")
    config.objective = create(name="average")
    config.model = create(name="resnet50", pretrained="imagenet", frozen=False)
    config.optim = create(name="sgd", lr=4e-4, momentum=0.9, weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=200,
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
        select="last",  # or "best": by the monitored metric
        monitor="val/group_balanced_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

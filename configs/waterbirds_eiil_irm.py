"""Waterbirds: environments inferred, then invariant risk minimisation over them.

Creager, Jacobsen and Zemel, "Environment Inference for Invariant Learning", ICML 2021, whose code follows EIIL by IRM on
colored MNIST, and by group DRO on Waterbirds: waterbirds_eiil. The environments are found as there, and IRM over the two
of them is that of waterbirds_irm. Uses no groups of train; val's are for choosing. ResNet-50 from ImageNet weights, 100
epochs of 4,795 images: for a GPU; not yet run here. Get the images with `imbalance data download waterbirds`.

    python main.py --config=configs/waterbirds_eiil_irm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"
    config.score = "val/worst_group_accuracy"  # what a run returns, measured on the selected weights

    config.data = create(
        name="waterbirds",
        size=224,  # resized to 256×256 and cropped
        regenerated=False,  # True takes a copy whose counts are not the published ones
        augment=(),  # or "random_resized_crop", "flip"
    )
    config.groups = create(name="eiil", first_epochs=1, ascent_steps=20000, ascent_lr=0.01)
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="irm", environments="attribute", penalty=100.0, warmup_steps=500)
    config.model = create(name="resnet50", pretrained="imagenet", frozen=False)
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # what becomes of the last layer after training

    config.trainer = create(
        epochs=100,
        batch_size=108,
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
        monitor="val/worst_group_accuracy",
        patience=0,  # evaluations without a better monitored metric before training ends; 0: never
        stop_at_interpolation=False,  # end after an epoch whose every prediction was right
        keep_logits=False,  # of every evaluation, to select by another rule afterwards
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config

"""Waterbirds: invariant risk minimisation.

Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019, over the two backgrounds, each with both
kinds of bird. Learning rate, weight decay, batch size, penalty and its 500 steps of warm-up are the defaults of
SubpopBench (Yang et al., ICML 2023), whose search has penalties from 0.1 to 1e5 and 1 to 10,000 steps; there the
penalty is the product of the slopes of two halves of a batch, and the optimiser starts anew when the warm-up ends.
Epochs are ours, and no augmentation. Uses the groups of train in the objective, and those of val in selection.

ResNet-50 from ImageNet weights, 100 epochs of 4,795 images: for a GPU; not yet run here. Get the images with `imbalance
data download waterbirds`.

    python main.py --config=configs/waterbirds_irm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"
    config.score = "val/worst_group_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="waterbirds",
        size=224,  # resized to 256×256 and cropped
        regenerated=False,  # True takes a copy whose counts are not the published ones
        augment=(),  # or "random_resized_crop", "flip"
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="irm", environments="attribute", penalty=100.0, warmup_steps=500)
    config.model = create(name="resnet50", pretrained="imagenet", frozen=False)
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=100,
        batch_size=108,
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

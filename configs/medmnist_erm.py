"""DermaMNIST: cross-entropy.

Seven classes of skin lesions, 67 % of them one: Yang et al., "MedMNIST v2", Scientific Data 2023. ResNet-20, 50 epochs
of 7,007 images of 28×28: not yet run here. CC BY-NC 4.0.

    python main.py --config=configs/medmnist_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds dermamnist.npz; imbalance data download dermamnist fetches it
    config.score = "val/balanced_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="medmnist",
        flag="dermamnist",
        augment=("flip",),  # or "pad_crop"
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="resnet20", frozen=False)
    config.optim = create(name="sgd", lr=0.1, momentum=0.9, weight_decay=2e-4, decayed="all")
    config.optim.schedule = create(name="cosine", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=50,
        batch_size=128,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=0.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=512,
        eval_every=1,  # epochs
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
        select="best",  # by the monitored metric; "last": the weights of the last epoch
        monitor="val/balanced_accuracy",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.

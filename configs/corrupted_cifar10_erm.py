"""Corrupted CIFAR-10, 5 % conflicting: cross-entropy.

Published for this share of conflicting images: 39.4 ± 0.6 % with ResNet-18 on other files of the same kind (quoted by
later papers).

Each class goes with a kind of noise or blur: Nam et al., "Learning from Failure", NeurIPS 2020. As there: ResNet-20,
Adam with learning rate 0.001, batches of 256, and 39,200 steps, which are 200 epochs of 50,000 images. Different here:
a tenth of the test images is val, and selects the epoch; the published numbers are the best test epoch. Not yet run
here at full length. The corruptions are made in a minute at the start of a run; `imbalance data cut` keeps them in a
file.

    python main.py --config=configs/corrupted_cifar10_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"  # contains cifar-10; `imbalance data download cifar10` downloads it
    config.score = "val/group_balanced_accuracy"  # the metric that the run returns, at the selected epoch

    config.data = create(
        name="corrupted_cifar10",
        source="made",  # "type0", "type1": the files that the published code writes
        conflicting=0.05,  # share of training images with another corruption; or 0.02, 0.01, 0.005
        severity=4,  # 1 to 4
        draw_seed=0,  # seed of the noise; config.seed does not change the images
        val_fraction=0.1,  # share of every group of the test images that becomes val
        augment=(),
        download=False,  # True: download the files into data_dir if they are missing (170 MB)
    )
    config.groups = create(name="data")  # the groups of the data set; "eiil", "xrm": groups that a first run infers
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="resnet20", frozen=False)
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create(name="adam", lr=0.001, betas=(0.9, 0.999), weight_decay=0.0, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=200,
        batch_size=256,
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm=0.0,  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size=512,
        eval_every=1,  # evaluate after every so many epochs
        eval_splits=("val",),  # splits of these evaluations; test is evaluated at the end in any case
        dtype="float32",
        mixed_precision="no",  # or "bf16"; on a GPU also "fp16"
        tf32="convolutions",  # where a GPU uses TF32 (10 bits of mantissa): "none", "convolutions", "all"
        channels_last=True,
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; or "reduce-overhead" (CUDA graphs), which suits small models on a GPU
        deterministic=False,  # True: results on a GPU are the same to the bit in every run, but training is slower
        shard=False,  # True: split the model and the optimiser's state over the processes, to save memory
        activation_checkpointing=False,  # True: compute activations again in the backward pass, to save memory
    )
    config.callbacks = create(
        select="best",  # test the epoch with the best monitored metric; "last": the last epoch
        monitor="val/group_balanced_accuracy",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.

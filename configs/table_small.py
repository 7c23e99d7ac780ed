"""Your own images: cross-entropy under importance weights of the groups, with a small network for a CPU.

A small LeNet-5, trained from scratch: a run on 600 training images takes 12 s on one core. On pullovers against coats
(700 and 160 images of Fashion-MNIST) it reaches 81 % test accuracy in the worse class. The model `resnet20` takes more
than ten times as long. For photographs, `table_ce` on a GPU is more accurate, because it starts from ImageNet weights.

A folder of images, and a CSV or Parquet file with their paths, classes and attributes. `imbalance data verify` with
this config checks both. Time and accuracy depend on your data.

    python main.py --config=configs/table_small.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"  # contains the table and the folder of images
    config.score = "val/worst_group_accuracy"  # the metric that the run returns, at the selected epoch

    config.data = create(
        name="table",
        file="table.csv",  # in data_dir; can also be .parquet
        delimiter=",",
        folder="images",  # in data_dir; the paths in the table are relative to it
        path="path",  # the column of the images' paths
        target="target",  # the column of the classes
        classes=("negative", "positive"),  # the values of this column
        attributes=(),  # groups: target × these columns, such as ("hospital",); (): each class is a group
        split="",  # the column whose values are train, val or test; "": splits are drawn
        val_fraction=0.1,  # share of every group; 0.0 if the table has this split
        test_fraction=0.2,
        mode="RGB",  # colour mode of the images; "L": grey
        convert=True,  # convert images of other modes (grey, palette, transparency, 16 bits); False: refuse them
        reduce=False,  # True: decode a large JPEG at 1/2, 1/4 or 1/8 of its size; faster, other pixels
        resize=32,  # the shorter side of an image is resized to this
        size=32,  # then the middle of the image is cropped to this size
        images_from="store",  # decode once, to disk; "files": decode each batch anew, so that crops see whole images
        augment=("flip", "pad_crop"),
    )
    config.groups = create(name="data")  # the groups of the data set; "eiil", "xrm": groups that a first run infers
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="group", exponent=1.0)
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="lenet")
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create(name="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=30,
        batch_size=64,
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm=0.0,  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size=128,
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
        monitor="val/worst_group_accuracy",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.

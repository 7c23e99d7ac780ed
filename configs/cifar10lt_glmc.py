"""CIFAR-10-LT, imbalance 100: global and local mixture consistency.

Du et al., "Global and Local Mixture Consistency Cumulative Learning for Long-Tailed Visual Recognitions", CVPR 2023.
The loss, its factors, the mixing, the learning rate, the weight decay, the batch size and the warm-up are those of the
authors' code, which has 1 and 4 as the factor of the consistency for CIFAR-10-LT. Different here: the network of the
authors, also called ResNet-32, is four times as wide; val is a tenth of the test images, and the last epoch is tested.
Training and selection read only class labels.

ResNet-32, 200 epochs of 12,406 images: needs a GPU; not yet run here.

    python main.py --config=configs/cifar10lt_glmc.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"  # contains cifar-10; `imbalance data download cifar10` downloads it
    config.score = "val/balanced_accuracy"  # the metric that the run returns, at the selected epoch

    config.data = create(
        name="cifar10lt",
        imbalance="exp",  # "none", "exp" or "step"
        imbalance_ratio=100.0,  # count of the largest class / count of the smallest
        val_from="test",  # val is a part of the test images; "train": of the training images
        val_fraction=0.1,  # share of these images that becomes val
        augment=("flip", "pad_crop"),
        download=False,  # True: download the files into data_dir if they are missing (170 MB)
    )
    config.groups = create(name="data")  # the groups of the data set; "eiil", "xrm": groups that a first run infers
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="glmc", alpha=1.0, exponent=0.0)
    config.loss = create(name="cross_entropy")
    config.objective = create(name="glmc", penalty=4.0, exponent=1.2, width=64)
    config.model = create(name="resnet32", frozen=False)
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-3, decayed="all")
    config.optim.schedule = create(name="cosine", warmup_epochs=10.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=200,
        batch_size=64,
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm=0.0,  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size=512,
        eval_every=10,  # evaluate after every so many epochs
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
        select="last",  # test the last epoch; "best": the epoch with the best monitored metric
        monitor="val/balanced_accuracy",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.

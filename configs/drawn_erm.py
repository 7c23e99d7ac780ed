"""Features of a network that is not trained, drawn anew at every seed: cross-entropy.

From features that `imbalance features` has stored, each seed draws a long tail of 1,000 to 10 images of ten classes.
Other numbers make rare groups of any size.

    python main.py --config=configs/drawn_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"  # contains the folder
    config.score = "val/balanced_accuracy"  # the metric that the run returns, at the selected epoch

    config.data = create(
        name="drawn",
        source=create(
            name="features",
            folder="cifar10_lite0",  # in data_dir; written by `imbalance features --output=…`
            standardise=False,
        ),
        groups="source",  # "conflicting": two groups of each class, its largest group and all others
        train_counts=(1000, 599, 359, 215, 129, 77, 46, 28, 17, 10),  # number of examples of each group
        val_counts=(100,),  # a shorter list is repeated
        test_counts=(300,),
        test_from="test",  # "all": test, too, is drawn from all splits of the source
        standardise=True,  # each feature to mean 0 and standard deviation 1 on the drawn training examples
    )
    config.groups = create(name="data")  # the groups of the data set; "eiil", "xrm": groups that a first run infers
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")  # or "mixup", "lisa"
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="linear", init="zeros")  # or "mlp", with hidden=(256,)
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create(name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-3, decayed="all")
    config.optim.schedule = create(name="constant", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=20,
        batch_size=128,
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm=0.0,  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size=4096,
        eval_every=1,  # evaluate after every so many epochs
        eval_splits=("val",),  # splits of these evaluations; test is evaluated at the end in any case
        dtype="float32",
        mixed_precision="no",  # or "bf16"; on a GPU also "fp16"
        tf32="convolutions",  # where a GPU uses TF32 (10 bits of mantissa): "none", "convolutions", "all"
        channels_last=False,
        images_on_device=False,  # True: keep all decoded images on the GPU; False: copy each batch there
        compile="no",  # or "default"; or "reduce-overhead" (CUDA graphs), which suits small models on a GPU
        deterministic=False,  # True: results on a GPU are the same to the bit in every run, but training is slower
        shard=False,  # True: split the model and the optimiser's state over the processes, to save memory
        activation_checkpointing=False,  # True: compute activations again in the backward pass, to save memory
    )
    config.callbacks = create(
        select="best",  # test the epoch with the best monitored metric; "last": the last epoch
        monitor="val/balanced_accuracy",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.

"""CivilComments: importance-weighted polynomially-tailed loss.

The loss of Wang et al., ICLR 2022, who have no experiment on this data set.

The hyperparameters are the defaults of the released code of WILDS (Koh et al., ICML 2021), except that the network is
BERT instead of DistilBERT: AdamW with learning rate 1e-5, weight decay 0.01 (none for biases and normalisation layers),
gradients clipped to norm 1, a linear schedule without warm-up, batches of 16, 300 tokens and 5 epochs. The epoch with
the best worst-group accuracy on val is selected. WILDS trains with the groups black × class; here the training groups
are any identity × class, as in later work. Not yet run here at full size: it needs a GPU, and downloads the weights
from the Hugging Face hub.

    pip install -c constraints.txt -e '.[text]'
    python main.py --config=configs/civilcomments_poly.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run only one batch of train, val and test, as a check
    config.work_dir = "runs"
    config.data_dir = "data"  # contains civilcomments_v1.0/
    config.score = "val/worst_group_accuracy"  # the metric that the run returns, at the selected epoch

    config.data = create(
        name="civilcomments",
        evaluation="fine",  # 16 overlapping groups for metrics, identity × class; "coarse": the four training groups
        tokenizer="bert-base-uncased",  # of the pretrained weights; "words", "pieces": learnt on train
        vocabulary=0,  # number of tokens that a tokenizer learns; 0 for the tokenizer of pretrained weights
        max_tokens=300,  # longer texts are cut
        bucket=50,  # sort the texts of so many batches by length, so that batches need less padding; 0: do not sort
    )
    config.groups = create(name="data")  # the groups of the data set; "eiil", "xrm": groups that a first run infers
    config.sampler = create(name="shuffle")
    config.weights = create(name="importance", by="group", exponent=1.0)
    config.mix = create(name="none")
    config.loss = create(name="poly", alpha=1.0, left="logistic")
    config.objective = create(name="average")
    config.model = create(name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1)
    config.adapter = create(name="none")  # "lora": changes of low rank are trained in place of the weights
    config.optim = create(name="adamw", lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01, decayed="weights")
    config.optim.schedule = create(name="linear", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=5,
        batch_size=16,
        accumulation=1,  # number of micro-batches that a batch is split into; more of them need less memory
        clip_norm=1.0,  # a gradient with a larger norm is scaled down to this norm; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the model weights, which is evaluated in their place; 0: none
        eval_batch_size=128,
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
        monitor="val/worst_group_accuracy",
        patience=0,  # stop after so many evaluations in which the monitored metric did not improve; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch that predicts every training example correctly
        keep_logits=False,  # True: save the logits of every evaluation, which `imbalance select` needs
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py writes this file again. To change it, copy it under another name and edit the copy.

"""CivilComments: cross-entropy.

The settings are the defaults of WILDS' released code (Koh et al., ICML 2021), with BERT where it has DistilBERT: AdamW
at 1e-5 with a decay of 0.01 but of biases and norms, gradients clipped at 1, a linear schedule without warm-up, batches
of 16, 300 tokens, 5 epochs, the epoch with the best worst group of val. Their own groups of training are black × class;
here they are any identity × class, as in later work. It was never run here at full size: it needs a GPU, and fetches
the weights from the Hugging Face hub.

    pip install -c constraints.txt -e '.[text]'
    python main.py --config=configs/civilcomments_erm.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import create


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.debug = False  # True: run one batch of train, val and test through everything
    config.work_dir = "runs"
    config.data_dir = "data"  # holds civilcomments_v1.0/
    config.score = "val/worst_group_accuracy"  # the metric that a run returns, of the selected weights

    config.data = create(
        name="civilcomments",
        evaluation="fine",  # by 16 overlapping groups, identity × class; "coarse": by the four groups of training
        tokenizer="bert-base-uncased",  # of the weights; or "words", "pieces", learnt on train
        vocabulary=0,  # learnt tokens; 0 for a tokenizer that has its own
        max_tokens=300,  # of a text
        bucket=50,  # batches that are sorted by length together; 0: none
    )
    config.groups = create(name="data")  # or inferred: "eiil", "xrm"
    config.sampler = create(name="shuffle")
    config.weights = create(name="uniform")
    config.mix = create(name="none")
    config.loss = create(name="cross_entropy")
    config.objective = create(name="average")
    config.model = create(name="encoder", pretrained="bert-base-uncased", pool="pooler", dropout=0.1)
    config.optim = create(name="adamw", lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01, decayed="weights")
    config.optim.schedule = create(name="linear", warmup_epochs=0.0)
    config.head = create(name="none")  # or a method that refits or adjusts the last layer after training

    config.trainer = create(
        epochs=5,
        batch_size=16,
        accumulation=1,  # micro-batches per batch; more of them need less memory
        clip_norm=1.0,  # largest norm of a batch's gradient; 0: no clipping
        ema_decay=0.0,  # decay of a moving average of the weights, evaluated in their place; 0: no average
        eval_batch_size=128,
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
        monitor="val/worst_group_accuracy",
        patience=0,  # stop after so many evaluations without a better monitored metric; 0: never
        stop_at_interpolation=False,  # True: stop after an epoch in which every prediction was right
        keep_logits=False,  # True: save the logits of every evaluation, to apply other selection rules later
        checkpoint_minutes=5.0,
    )
    config.logger = create(mode="disabled", project="imbalance")  # or "tensorboard"; wandb: "offline", "online"
    return config


# tools/write_configs.py wrote this file. A copy under another name is yours to edit.

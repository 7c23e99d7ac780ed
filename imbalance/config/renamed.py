"""Names of configs and keys of older versions, and what to type instead.

Each config file that is gone differed in a few values from a file that still exists, so flags now give these values. If a
user types the name of such a file, the error message of `config_file` has the flags to type. Tables in results/ may contain
old names; `current_name` of `imbalance.report.kept_results` translates them.
"""

from collections.abc import Iterable

# By old name: the config of now, and the overrides to type after `--config.`.
RENAMED = {
    "celeba_ce_early_stopped": "celeba_ce callbacks.select=best",
    "celeba_ce_exponent2": "celeba_ce trainer.epochs=100 weights.exponent=2",
    "celeba_poly_dro": "celeba_dro loss.name=poly loss.alpha=2 loss.left=logistic",
    "celeba_poly_early_stopped": "celeba_poly callbacks.select=best",
    "celeba_poly_exponent2": "celeba_poly trainer.epochs=100 weights.exponent=2",
    "celeba_poly_exponent25": "celeba_poly loss.alpha=2 trainer.epochs=200 weights.exponent=2.5",
    "celeba_poly_unweighted": "celeba_poly weights.name=uniform",
    "celeba_undersampled": "celeba_erm sampler.name=reject sampler.by=group sampler.redraw=False",
    "celeba_vs_dro": "celeba_dro loss.name=vs_group loss.gamma=0.4 loss.tau=0",
    "celeba_vs_group": "celeba_erm loss.name=vs_group loss.gamma=0.4 loss.tau=0",
    "cifar100lt_ce": "cifar100lt_poly loss.name=cross_entropy weights.exponent=1",
    "cifar10lt_balanced_softmax": "cifar10lt_erm loss.name=balanced_softmax",
    "cifar10lt_ce": "cifar10lt_poly loss.name=cross_entropy weights.exponent=1",
    "cifar_cdt": "cifar_erm loss.name=cdt loss.gamma=0.5 optim.lr=0.01 trainer.epochs=300",
    "cifar_ce_early_stopped": "cifar_ce callbacks.select=best",
    "cifar_ce_exponent15": "cifar_ce optim.lr=0.008 optim.momentum=0 weights.exponent=1.5",
    "cifar_ce_exponent15_early_stopped": "cifar_ce callbacks.select=best optim.lr=0.008 optim.momentum=0 weights.exponent=1.5",
    "cifar_dro": "cifar_erm objective.name=group_dro objective.adjust_absent=False objective.size_adjustment=0 objective.step_size=0.01",
    "cifar_logit_adjusted": "cifar_erm loss.name=logit_adjusted loss.tau=3 optim.lr=0.01 trainer.epochs=300",
    "cifar_pair_lenet_ce": "cifar_pair_ce model.name=lenet",
    "cifar_pair_lenet_poly": "cifar_pair_poly model.name=lenet",
    "cifar_poly_early_stopped": "cifar_poly callbacks.select=best",
    "cifar_poly_exponent15": "cifar_poly optim.lr=0.008 optim.momentum=0 weights.exponent=1.5",
    "cifar_poly_exponent15_early_stopped": "cifar_poly callbacks.select=best optim.lr=0.008 optim.momentum=0 weights.exponent=1.5",
    "cifar_poly_exponent3": "cifar_poly loss.alpha=2 optim.lr=0.08 optim.momentum=0 trainer.epochs=600 weights.exponent=3",
    "cifar_poly_unweighted": "cifar_poly weights.name=uniform",
    "cifar_undersampled": "cifar_erm sampler.name=reject sampler.by=class sampler.redraw=False trainer.epochs=600",
    "colored_digits_annealed": "colored_digits_erm optim.lr=0.03 sampler.name=annealed_linear sampler.by=group weights.name=residual",
    "colored_digits_balanced_softmax": "colored_digits_erm loss.name=balanced_softmax optim.lr=0.03",
    "colored_digits_cdt": "colored_digits_erm loss.name=cdt loss.gamma=0.3 optim.lr=0.03",
    "colored_digits_class_balanced": "colored_digits_erm loss.name=class_balanced loss.beta=0.999 loss.gamma=0.5 optim.lr=0.03",
    "colored_digits_class_balanced_sigmoid": "colored_digits_erm loss.name=class_balanced_sigmoid loss.beta=0.999 loss.gamma=0.5 optim.lr=0.03",
    "colored_digits_coral": "colored_digits_erm objective.name=coral objective.environments=attribute objective.penalty=10",
    # The old file had no clip_norm, and two of ten seeds diverged.
    "colored_digits_eiil_irm": "colored_digits_irm groups.name=eiil groups.ascent_lr=0.01 groups.ascent_steps=1000 groups.first_epochs=2 trainer.clip_norm=1",
    "colored_digits_focal": "colored_digits_erm loss.name=focal loss.gamma=2 optim.lr=0.03",
    "colored_digits_logit_adjusted": "colored_digits_erm loss.name=logit_adjusted loss.tau=1 optim.lr=0.03",
    "colored_digits_lws": "colored_digits_erm head.name=lws head.batch_size=64 head.by=group head.epochs=20 head.lr=0.1 head.momentum=0.9 head.weight_decay=0.0005 optim.lr=0.03",
    "colored_digits_mixup_drw": "colored_digits_erm mix.name=mixup mix.alpha=1 weights.name=deferred weights.beta=0.9999 weights.by=class weights.start_epoch=80",
    "colored_digits_mmd": "colored_digits_erm objective.name=mmd objective.environments=attribute objective.gammas=0.001,0.01,0.1,1,10,100,1000 objective.penalty=0.01",
    "colored_digits_oversampled": "colored_digits_erm optim.lr=0.03 sampler.name=oversample sampler.by=group",
    "colored_digits_poly_dro": "colored_digits_dro loss.name=poly loss.alpha=2 loss.left=logistic optim.lr=0.03",
    "colored_digits_poly_exponent15": "colored_digits_poly weights.exponent=1.5",
    "colored_digits_post_hoc": "colored_digits_erm head.name=logit_adjusted head.tau=1 optim.lr=0.03",
    "colored_digits_remix": "colored_digits_erm mix.name=remix mix.alpha=1 mix.kappa=2 mix.tau=0.5 optim.lr=0.03",
    "colored_digits_resampled": "colored_digits_erm optim.lr=0.03 sampler.name=resample sampler.by=group sampler.exponent=1",
    "colored_digits_vs_dro": "colored_digits_dro loss.name=vs_group loss.gamma=0.4 loss.tau=0 optim.lr=0.03",
    "colored_digits_vs_group": "colored_digits_erm loss.name=vs_group loss.gamma=0.3 loss.tau=1 optim.lr=0.03",
    "digits_pair_erm": "digits_pair_ce weights.name=uniform",
    "digits_pair_logit_adjusted": "digits_pair_ce loss.name=logit_adjusted loss.tau=1 weights.name=uniform",
    "digits_pair_poly": "digits_pair_ce loss.name=poly loss.alpha=1 loss.left=logistic",
    "fashion_ce": "fashion_poly loss.name=cross_entropy weights.exponent=1",
    "fashion_pair_erm": "fashion_pair_ce weights.name=uniform",
    "fashion_pair_lenet_ce": "fashion_pair_ce model.name=lenet",
    "fashion_pair_lenet_poly": "fashion_pair_poly model.name=lenet",
    "fashion_pair_logit_adjusted": "fashion_pair_ce loss.name=logit_adjusted loss.tau=1 weights.name=uniform",
    "medmnist_ce": "medmnist_poly loss.name=cross_entropy weights.exponent=1",
    "multinli_ce": "multinli_poly loss.name=cross_entropy",
    "waterbirds_coral": "waterbirds_irm objective.name=coral objective.environments=attribute objective.penalty=1",
    "waterbirds_eiil_irm": "waterbirds_irm groups.name=eiil groups.ascent_lr=0.01 groups.ascent_steps=20000 groups.first_epochs=1",
    "waterbirds_mixup_drw": "waterbirds_erm mix.name=mixup mix.alpha=0.2 weights.name=deferred weights.beta=0.9999 weights.by=class weights.start_epoch=80",
    "waterbirds_mmd": "waterbirds_irm objective.name=mmd objective.environments=attribute objective.gammas=0.001,0.01,0.1,1,10,100,1000 objective.penalty=1",
    "waterbirds_remix": "waterbirds_erm mix.name=remix mix.alpha=1 mix.kappa=3 mix.tau=0.5",
}

# By old key: the key of now, and what differs.
RENAMED_KEYS = {
    "data.groups": (
        "data.attributes",
        "the columns that are crossed with the target to make the groups, without the target",
    )
}
# For keys that users expect but no config has: what to type instead.
EXPECTED_KEYS = {
    "loss.label_smoothing": "label smoothing is a loss of its own, for cross-entropy and its relatives: use "
    "config.loss.name=smoothed config.loss.label_smoothing=<ε> config.loss.gamma=0 config.loss.tau=0; for balanced "
    "softmax use config.loss.tau=1"
}


def renamed_key(key: str, keys: Iterable[str]) -> str:
    """Return the end of the message that `key` is unknown: the key that replaces it, and how the two differ.

    For a key of `EXPECTED_KEYS` return what to type instead. Return "" if no older version had this key, or if the config
    cannot have the key that replaces it.

    Args:
        key: the full key, such as "data.groups".
        keys: the full keys that the config can have, such as "data.attributes".
    """
    if key in EXPECTED_KEYS:
        return f"; {EXPECTED_KEYS[key]}"
    new, meaning = RENAMED_KEYS.get(key, ("", ""))
    return f"; it is config.{new} now: {meaning}" if new in keys else ""

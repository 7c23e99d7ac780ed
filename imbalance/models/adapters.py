"""Adapters: small trained changes of a network whose own weights stay as they are (`config.adapter`).

The package peft adds the layers of an adapter to `features`; the last layer, `head`, is trained as always. At the end of a
run the changes are added to the weights. So a trained model has the layers of the network without an adapter:
`load` and the commands `imbalance predict`, `imbalance export` and `imbalance features` need no peft.
"""

from torch import nn

from imbalance.config.schema import Count, Fraction, Positive
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.models.weights import Frozen
from imbalance.utils.libraries import import_library


@tagged(batched=True)
def none(network: nn.Module) -> nn.Module:
    """Return `network` as it is: all its weights are trained, unless `config.model` says otherwise."""
    return network


def lora(network: nn.Module, *, rank: Count, alpha: Positive, dropout: Fraction, targets: tuple[str, ...]) -> nn.Module:
    """Train a low-rank change of each (D, d) weight matrix W: W becomes W + (α/r) B A, with matrices B (D, r) and A (r, d).

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. A starts at random and B at zero, so the
    network starts as it is. Weights W, biases and normalisation layers stay as they are. The last layer is trained as a whole.
    Dettmers et al. (NeurIPS 2023) need a change in every linear layer to match the training of all weights.

    Args:
        rank: r, the rank of each change; 4 to 16 are usual.
        alpha: α; the usual values are r and 2r.
        dropout: the probability of dropout on the inputs of A; 0 for none.
        targets: the ends of the names of the layers that are changed, such as "query,value" (BERT) or "qkv" (ViT of timm);
            empty for all linear layers.

    Raises:
        BadInput: the network is frozen, or has no such layers.
    """
    peft = import_library("peft", "lora", "config.adapter.name")
    features = network.get_submodule("features")
    if isinstance(features, Frozen):
        raise BadInput(
            "config.adapter.name: 'lora' given, but all layers before the last are frozen; use a model that is trained, with "
            "config.model.frozen=False, or adapter.name='none'"
        )
    linear = [name for name, module in features.named_modules() if isinstance(module, nn.Linear)]
    if not (targets or linear):
        raise BadInput(
            "config.adapter.targets: () given, which means all linear layers before the last, and the model has none; name "
            "layers of another kind, such as conv1, or use adapter.name='none'"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets) or linear)
    try:
        peft.inject_adapter_in_model(config, features)
    except ValueError as error:  # no layer has such a name, or one is of a kind that peft cannot change
        raise BadInput(
            f"config.adapter.targets: {','.join(targets)} given ({str(error).split('. ')[0][:200]}); name layers that peft "
            f"can change, such as linear layers ({', '.join(linear[:8]) or 'none'}{', …' if len(linear) > 8 else ''})"
        ) from None
    return network


def merge_adapter(network: nn.Module) -> None:
    """Add the changes of an adapter to the weights of `network`, and replace its layers with plain ones, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in adapted:
        parent, _, last = name.rpartition(".")
        layer.merge()
        setattr(network.get_submodule(parent), last, layer.get_base_layer())


ADAPTERS = {"none": none, "lora": lora}

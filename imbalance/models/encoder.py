"""The model "encoder": a pretrained text encoder of the package transformers, with a new last layer."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imbalance.config.schema import Fraction, Name
from imbalance.errors import BadInput
from imbalance.models.small import CosineLinear, Head, with_head
from imbalance.models.text import mean_of_tokens
from imbalance.utils.libraries import import_library, load_from_transformers

Pool = Literal["pooler", "first", "mean"]


class Encoder(nn.Module):
    """A text encoder that returns one vector for each text; `pool` decides how the vector is computed, see `encoder`.

    section: a section `config.model` for model.json. It builds the same network without loading pretrained weights.
    positions: the largest number of tokens that a text can have.
    """

    section: dict[str, Any]
    positions: int

    def __init__(self, transformer: nn.Module, pool: Pool, dropout: float):
        super().__init__()
        has_pooler = getattr(transformer, "pooler", None) is not None
        if pool == "pooler" and not has_pooler:
            raise BadInput(
                f"config.model.pool: 'pooler' given; {type(transformer).__name__} has none; use 'first' or 'mean'"
            )
        if pool != "pooler" and has_pooler:
            transformer.register_module("pooler", None)  # remove it, because its unused weights would get no gradient
        self.transformer, self.pool, self.dropout = transformer, pool, nn.Dropout(dropout)
        self.has_kinds = getattr(transformer.config, "type_vocab_size", 0) > 1

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        size = len(inputs["input_ids"])
        if not size:  # this process has no example in this step; pass one token, because transformers fails on none
            inputs = {
                "input_ids": inputs["input_ids"].new_zeros(1, 1),
                "attention_mask": inputs["input_ids"].new_ones(1, 1),
            }
        arguments = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids" or self.has_kinds}
        outputs = self.transformer(**arguments)
        if self.pool == "pooler":
            pooled = outputs.pooler_output
        elif self.pool == "first":
            pooled = outputs.last_hidden_state[:, 0]
        else:
            pooled = mean_of_tokens(outputs.last_hidden_state, inputs["attention_mask"])
        return self.dropout(pooled[:size])


def encoder(
    vocabulary: int,
    num_classes: int,
    architecture: Mapping[str, Any] | None,
    head: Head = nn.Linear,
    *,
    pretrained: Name,
    pool: Pool,
    dropout: Fraction,
) -> nn.Sequential:
    """Build a pretrained text encoder with a new last layer; training changes both (Devlin et al., NAACL 2019).

    Args:
        architecture: None to load the encoder `pretrained`. To rebuild the network of a finished run: the architecture in
            its model.json; the encoder then has random weights, into which the trained weights can be loaded.
        pretrained: the pretrained encoder: a name on the Hugging Face hub, or a folder that `save_pretrained` has
            written. `config.data.tokenizer` must name the tokenizer of this encoder.
        pool: the vector of a text, computed from the outputs of the last block. "first": the output of the first token;
            "pooler": this output after a pretrained layer, which BERT has; "mean": the mean output of all tokens.
        dropout: the probability of dropout before the last layer.
    """
    if architecture is None:
        transformer = load_from_transformers("AutoModel", pretrained, "config.model.pretrained").to(torch.float32)
    else:
        transformers = import_library("transformers", "text", "model.json")
        transformer = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**architecture))
    config = transformer.config
    if vocabulary > (rows := transformer.get_input_embeddings().num_embeddings):
        raise BadInput(
            f"config.data.tokenizer: the tokenizer has {vocabulary:,} tokens, and config.model.pretrained={pretrained!r} has "
            f"embeddings for {rows:,}; set config.data.tokenizer={pretrained!r}"
        )
    features = Encoder(transformer, pool, dropout)
    features.section = {  # a finished run must load without the pretrained weights, which may be gone
        "name": "encoder_cosine" if head is CosineLinear else "encoder",
        "pretrained": "",
        "pool": pool,
        "dropout": dropout,
        "architecture": json.loads(config.to_json_string(use_diff=False)),
    }
    # RoBERTa numbers its positions from `offset`, so it has fewer of them than its config says.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    features.positions = getattr(config, "max_position_embeddings", 1 << 30) - offset
    return with_head(features, config.hidden_size, num_classes, head)

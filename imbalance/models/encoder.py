"""Pretrained encoders of texts, as the `transformers` package has them, under a new last layer."""

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
    """The states of a text's tokens after the last layer, as one vector: what the pooler, or the first token, or the mean
    makes of them; some of it dropped out."""

    def __init__(self, transformer: nn.Module, pool: Pool, dropout: float):
        super().__init__()
        has_pooler = getattr(transformer, "pooler", None) is not None
        if pool == "pooler" and not has_pooler:
            raise BadInput(
                f"config.model.pool: 'pooler' given; {type(transformer).__name__} has none: 'first' or 'mean'"
            )
        if pool != "pooler" and has_pooler:
            transformer.pooler = None  # whose weights would wait for a gradient
        self.transformer, self.pool, self.dropout = transformer, pool, nn.Dropout(dropout)
        self.kinds = getattr(transformer.config, "type_vocab_size", 0) > 1

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        size = len(inputs["input_ids"])
        if not size:  # a part or a process without an example, whose shapes transformers cannot make out
            inputs = {
                "input_ids": inputs["input_ids"].new_zeros(1, 1),
                "attention_mask": inputs["input_ids"].new_ones(1, 1),
            }
        taken = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids" or self.kinds}
        outputs = self.transformer(**taken)
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
    """A pretrained encoder, all of it trained on, and a linear layer (Devlin et al., NAACL 2019).

    Args:
        architecture: of an encoder whose weights come later, as model.json has it; None for that of `pretrained`.
        pretrained: the weights, by their name on the Hugging Face hub or by a folder. `config.data.tokenizer` must be theirs.
        pool: what of a text's states the last layer sees: "pooler", a layer of the weights' own on the first token (BERT's),
            "first", that token, or "mean", of all tokens.
        dropout: before the last layer.
    """
    if architecture is None:
        transformer = load_from_transformers("AutoModel", pretrained, "config.model.pretrained").to(torch.float32)
    else:
        transformers = import_library("transformers", "text", "model.json")
        transformer = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**architecture))
    config = transformer.config
    if vocabulary > (rows := transformer.get_input_embeddings().num_embeddings):
        raise BadInput(
            f"config.data.tokenizer: it has {vocabulary:,} tokens, and the weights of config.model.pretrained="
            f"{pretrained!r} {rows:,}; use the tokenizer of the weights"
        )
    model = with_head(Encoder(transformer, pool, dropout), config.hidden_size, num_classes, head)
    model.features.section = {  # for model.json: a run is loaded where the weights that it began with are not
        "name": "encoder_cosine" if head is CosineLinear else "encoder",
        "pretrained": "",
        "pool": pool,
        "dropout": dropout,
        "architecture": json.loads(config.to_json_string(use_diff=False)),
    }
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0  # where theirs begin to count
    model.features.positions = getattr(config, "max_position_embeddings", 1 << 30) - offset
    return model

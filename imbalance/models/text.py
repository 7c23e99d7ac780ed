"""Text networks trained from random weights: a bag of embeddings, and a small transformer.

Their input is a mapping with `input_ids` (B, L) and `attention_mask` (B, L), which is 1 for tokens and 0 for padding.
No output depends on the padding. The argument `vocabulary` of the functions is the number of different tokens. A model
function that has this argument takes texts; a model function without it takes images or arrays.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.schema import Count, Fraction
from imbalance.config.tags import tagged
from imbalance.errors import BadInput
from imbalance.models.small import Head, with_head


def mean_of_tokens(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the (B, D) mean vector of the tokens of each text, without padding.

    Args:
        vectors: (B, L, D), one vector for each token.
        mask: (B, L), 1 for tokens and 0 for padding.
    """
    mask = mask[..., None].to(vectors.dtype)
    return (vectors * mask).sum(1) / mask.sum(1).clamp(min=1)


class Bag(nn.Module):
    """A network that returns the mean embedding of the tokens of each text.

    Args:
        vocabulary: the number of different tokens.
        width: the length of an embedding.
    """

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return mean_of_tokens(self.embedding(inputs["input_ids"]), inputs["attention_mask"])


@tagged(batched=True)
def bag_of_embeddings(vocabulary: int, num_classes: int, head: Head = nn.Linear, *, width: Count) -> nn.Sequential:
    """Build trainable token embeddings and a linear layer on their mean over each text (Joulin et al., EACL 2017).

    Args:
        width: the length of an embedding.
    """
    return with_head(Bag(vocabulary, width), width, num_classes, head)


class Block(nn.Module):
    """A transformer block: attention and a perceptron, with layer normalisation before each (Xiong et al., ICML 2020).

    Args:
        width: the length of the state vector of each token.
        heads: the number of attention heads.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, L, D) after the block.

        Args:
            states: (B, L, D) states before the block.
            mask: (B, 1, 1, L) booleans, false for padding, which no state attends to.
        """
        parts = self.project(self.before_attention(states)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        states = states + self.drop(self.merge(attended.transpose(1, 2).flatten(2)))
        return states + self.drop(self.perceptron(self.before_perceptron(states)))

    def drop(self, states: Tensor) -> Tensor:
        return F.dropout(states, self.dropout, self.training)


class Transformer(nn.Module):
    """A transformer encoder that returns one vector for each text: the mean of its token states after the last block.

    The states before the first block are the sums of token embeddings and sinusoidal position encodings.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        states = self.embedding(ids) * self.embedding.embedding_dim**0.5
        states = states + position_encoding(ids.shape[1], states)
        for block in self.blocks:
            states = block(states, mask[:, None, None, :].bool())
        return mean_of_tokens(self.norm(states), mask)


def position_encoding(length: int, like: Tensor) -> Tensor:
    """Return the (L, D) sinusoidal encodings of the positions 0 to L − 1 (Vaswani et al., 2017).

    The wavelengths range from 2π to 10,000 · 2π.

    Args:
        length: L.
        like: a tensor of the wanted device and type, whose last dimension is D.
    """
    half = like.shape[-1] // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-torch.log(torch.tensor(1e4)).item() / half))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


def transformer(
    vocabulary: int,
    num_classes: int,
    head: Head = nn.Linear,
    *,
    width: Count,
    depth: Count,
    heads: Count,
    dropout: Fraction,
) -> nn.Sequential:
    """Build a small transformer encoder with random weights, and a linear layer on the mean over all tokens.

    Args:
        width: the length of the state vector of each token.
        depth: the number of blocks.
        heads: the number of attention heads of each block.
        dropout: the probability with which dropout sets to 0 an attention weight, or an output of the attention or the
            perceptron of a block.
    """
    if width % (2 * heads):
        raise BadInput(f"config.model.width: {width} given; it must be a multiple of 2 · heads = {2 * heads}")
    return with_head(Transformer(vocabulary, width, depth, heads, dropout), width, num_classes, head)

"""From texts to numbers: tokenizers learnt on the training texts, or those that belong to pretrained weights.

Either becomes one of the `tokenizers` package, which its JSON says all of: what a store is keyed by and a model keeps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imbalance.errors import BadInput
from imbalance.utils.libraries import load_from_transformers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, FIRST, SEPARATOR = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = [PAD, UNKNOWN, FIRST, SEPARATOR]
LEARNT = ("words", "pieces")
PAIRS = "pairs of texts"


def package() -> Any:
    """The module `tokenizers`."""
    try:
        import tokenizers
    except ImportError:
        raise BadInput("config.data.name: texts need tokenizers: pip install 'imbalance[text]'") from None
    return tokenizers


def learnt(kind: str, texts: Sequence[str], size: int) -> "Tokenizer":
    """A vocabulary of the texts: one of "words", in lower case, or of byte pairs, the "pieces" of words.

    A text is the first token, then its own, so that none is empty; a second text comes after a separator.

    Args:
        size: of the vocabulary, special tokens included.
    """
    tokenizers = package()
    if kind == "words":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # words, and runs of what is no letter
        trainer = tokenizers.trainers.WordLevelTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    else:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
        tokenizer.normalizer = tokenizers.normalizers.NFKC()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        )
    tokenizer.train_from_iterator(texts, trainer)
    special = [(token, tokenizer.token_to_id(token)) for token in (FIRST, SEPARATOR)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{FIRST} $A", pair=f"{FIRST} $A {SEPARATOR} $B:1", special_tokens=special
    )
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)  # which says what padding is
    return tokenizer


def ready(name: str) -> "Tokenizer":
    """The tokenizer of pretrained weights, by their name or folder, as `transformers` has it.

    Raises:
        BadInput: it is not there, or exists only in Python, whose rules are not all in its files.
    """
    tokenizers = package()
    if (Path(name) / "tokenizer.json").is_file():  # all that there is to know, and nothing else to import
        tokenizer = tokenizers.Tokenizer.from_file(str(Path(name) / "tokenizer.json"))
        return with_padding(tokenizer, padding_token(Path(name)), name)
    found = load_from_transformers("AutoTokenizer", name, "config.data.tokenizer")
    if not getattr(found, "is_fast", False):
        raise BadInput(f"config.data.tokenizer: {name} has no tokenizer of the fast kind (tokenizer.json)")
    return with_padding(tokenizers.Tokenizer.from_str(found.backend_tokenizer.to_str()), found.pad_token, name)


def padding_token(folder: Path) -> str | None:
    """As the file beside a tokenizer names it."""
    try:
        token = json.loads((folder / "tokenizer_config.json").read_text()).get("pad_token")
    except (OSError, ValueError):
        return PAD
    return token.get("content") if isinstance(token, dict) else token


def with_padding(tokenizer: "Tokenizer", token: str | None, name: str) -> "Tokenizer":
    """The tokenizer with the token that stands for nothing."""
    number = tokenizer.token_to_id(token) if token else None
    if number is None:
        raise BadInput(f"config.data.tokenizer: {name} has no padding token")
    tokenizer.enable_padding(pad_id=number, pad_token=token)
    return tokenizer


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str] | Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Of each text, or pair of texts, its tokens and which text each is of, not padded."""
    padding, _ = tokenizer.padding, tokenizer.no_padding()
    try:
        return [(one.ids, one.type_ids) for one in tokenizer.encode_batch_fast(list(texts))]
    finally:
        tokenizer.enable_padding(**padding)


def from_json(text: str) -> "Tokenizer":
    """A tokenizer from what `to_str` made of it."""
    return package().Tokenizer.from_str(text)

"""Learn a tokenizer on the training texts, or load the tokenizer of pretrained weights.

Both kinds are tokenizers of the package `tokenizers`. The JSON of a tokenizer describes it completely. So a trained model
saves this JSON, and the name of a token store has a hash of it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imbalance.errors import BadInput
from imbalance.utils.libraries import load_from_transformers, minilm_file
from imbalance.utils.optional import optional
from imbalance.utils.read import checked_format, read_json, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, FIRST, SEPARATOR = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = [PAD, UNKNOWN, FIRST, SEPARATOR]
LEARNT = ("words", "pieces")  # the tokenizers of a config that are learnt on the training texts


def import_tokenizers() -> Any:
    """Return the package `tokenizers`, or raise `BadInput` if it is not installed."""
    install = "config.data.name: texts need the package tokenizers: pip install 'imbalance[text]'"
    with optional("tokenizers", message=install):
        import tokenizers
    return tokenizers


def learn_tokenizer(kind: str, texts: Iterable[str], size: int) -> "Tokenizer":
    """Learn a tokenizer on `texts`.

    The tokenizer puts the token [CLS] before each text, so that no text is empty. It puts [SEP] between the texts of a
    pair.

    Args:
        kind: "words" for words in lower case; "pieces" for byte pairs, which are parts of words.
        size: the largest number of tokens in the vocabulary, with the special tokens.
    """
    tokenizers = import_tokenizers()
    if kind == "words":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # splits into words and runs of punctuation
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
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)  # records the padding token in the JSON
    return tokenizer


def load_tokenizer(name: str) -> "Tokenizer":
    """Load the tokenizer of pretrained weights.

    Args:
        name: the name of the weights on the Hugging Face hub, or their folder; "minilm" for the tokenizer of the
            pretrained model `minilm`, which a Python package contains.

    Raises:
        BadInput: there is no such tokenizer, or it is not a fast one, whose rules are all in tokenizer.json.
    """
    tokenizers = import_tokenizers()
    if name == "minilm":
        content = minilm_file("tokenizer.json", "config.data.tokenizer").decode()
        return with_padding(tokenizers.Tokenizer.from_str(content), PAD, name)
    if (Path(name) / "tokenizer.json").is_file():  # the file is enough, and transformers need not be installed
        file = Path(name) / "tokenizer.json"
        tokenizer = checked_format(file, lambda: tokenizers.Tokenizer.from_str(read_text(file)))
        return with_padding(tokenizer, padding_token(Path(name)), name)
    loaded = load_from_transformers("AutoTokenizer", name, "config.data.tokenizer")
    if not getattr(loaded, "is_fast", False):
        raise BadInput(
            f"config.data.tokenizer: {name} has no fast tokenizer (tokenizer.json), which is needed; "
            "name pretrained weights that have one"
        )
    return with_padding(tokenizers.Tokenizer.from_str(loaded.backend_tokenizer.to_str()), loaded.pad_token, name)


def padding_token(folder: Path) -> str | None:
    """Return the padding token that tokenizer_config.json in `folder` names; "[PAD]" if there is no such file."""
    try:
        token = read_json(folder / "tokenizer_config.json").get("pad_token")
    except FileNotFoundError:
        return PAD
    return token.get("content") if isinstance(token, dict) else token


def with_padding(tokenizer: "Tokenizer", token: str | None, name: str) -> "Tokenizer":
    """Set the padding token of the tokenizer, and return the tokenizer; raise `BadInput` if there is no such token.

    Args:
        token: the padding token, such as "[PAD]".
        name: the name of the pretrained weights, for the message.
    """
    number = tokenizer.token_to_id(token) if token else None
    if token is None or number is None:
        raise BadInput(
            f"config.data.tokenizer: {name} has no padding token, which batches need; "
            "name pretrained weights whose tokenizer has one"
        )
    tokenizer.enable_padding(pad_id=number, pad_token=token)
    return tokenizer


def encode(
    tokenizer: "Tokenizer", texts: Sequence[str] | Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Tokenise texts or pairs of texts, without padding.

    Returns:
        For each text or pair, a tuple of two lists with an entry for each of its tokens: the number of the token in the
        vocabulary; and 1 if the token is in the second text of a pair, 0 otherwise.
    """
    padding, _ = tokenizer.padding, tokenizer.no_padding()
    assert padding is not None  # both ways to get a tokenizer set the padding
    try:
        return [(encoding.ids, encoding.type_ids) for encoding in tokenizer.encode_batch_fast(list(texts))]
    finally:
        tokenizer.enable_padding(**padding)


def from_json(text: str) -> "Tokenizer":
    """Return the tokenizer whose JSON is `text`."""
    return import_tokenizers().Tokenizer.from_str(text)

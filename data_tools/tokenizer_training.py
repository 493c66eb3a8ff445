"""Training a byte-level BPE on the texts of data sets.

Any text can be written in it, since all 256 bytes are tokens. Equal texts give equal files: merges
are chosen by count, ties by the tokens' numbers.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ssl_scale.data.index import Dataset, read_dataset, read_shard_index
from ssl_scale.errors import DataError

from .work import write_atomically

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUM_BYTES = 256
TOKENIZER_FILE = "tokenizer.json"
_BATCH = 1000


@dataclass(frozen=True)
class Figures:
    """How well a tokenizer fits its texts.

    Args:
        vocabulary: tokens it knows.
        texts: how many were read.
        bytes_per_token: how much a token stands for.
        tokens_per_word: words are what white space parts.
    """

    vocabulary: int
    texts: int
    bytes_per_token: float
    tokens_per_word: float


def read_texts(datasets: Sequence[Dataset], extension: str) -> Iterator[str]:
    """All texts of the data sets, in order.

    Raises:
        DataError: a data set has none, or one is not UTF-8.
    """
    for dataset in datasets:
        if not dataset.fields.get(extension):
            raise DataError(
                f"{dataset.folder} must hold .{extension} texts, but holds only "
                f"{sorted(dataset.fields)}"
            )
        for number in range(len(dataset.shards)):
            yield from _read_shard(dataset, number, extension)


def _read_shard(dataset: Dataset, number: int, extension: str) -> Iterator[str]:
    index = read_shard_index(dataset, number, [extension])
    if extension not in index.lengths:
        return
    descriptor = os.open(dataset.path(number), os.O_RDONLY)
    try:
        places = zip(index.keys, index.offsets[extension], index.lengths[extension], strict=True)
        for key, offset, length in places:
            if length < 0:
                continue
            try:
                yield os.pread(descriptor, int(length), int(offset)).decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(
                    f"{dataset.path(number)}: {key}.{extension} must be UTF-8, but is not"
                ) from None
    finally:
        os.close(descriptor)


def train_tokenizer(
    folders: Sequence[Path], extension: str, vocab_size: int, output: Path
) -> Figures:
    """Train on all texts and write ``tokenizer.json``.

    Args:
        folders: data sets.
        extension: which of their members are texts.
        vocab_size: tokens at most; texts may not give so many.
        output: folder for the file.

    Raises:
        DataError: there are no such texts, or the vocabulary is too small for the bytes.
    """
    least = NUM_BYTES + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise DataError(
            f"--vocab-size must be at least {least} ({NUM_BYTES} bytes and {len(SPECIAL_TOKENS)} "
            f"special tokens), but is {vocab_size}"
        )
    datasets = [read_dataset(folder) for folder in folders]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_texts(datasets, extension), trainer)
    marks = [(name, SPECIAL_TOKENS.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    write_atomically(output / TOKENIZER_FILE, tokenizer.to_str(pretty=True) + "\n")
    return measure(tokenizer, read_texts(datasets, extension))


def measure(tokenizer: Tokenizer, texts: Iterator[str]) -> Figures:
    """Encode texts and count."""
    num_texts = num_bytes = num_words = num_tokens = 0
    batch: list[str] = []

    def count() -> int:
        encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
        return sum(len(encoding.ids) for encoding in encoded)

    for text in texts:
        num_texts += 1
        num_bytes += len(text.encode("utf-8"))
        num_words += len(text.split())
        batch.append(text)
        if len(batch) == _BATCH:
            num_tokens += count()
            batch.clear()
    num_tokens += count()
    return Figures(
        tokenizer.get_vocab_size(),
        num_texts,
        num_bytes / max(num_tokens, 1),
        num_tokens / max(num_words, 1),
    )

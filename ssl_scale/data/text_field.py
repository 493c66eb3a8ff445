"""Text: from UTF-8 bytes to token ids, by a tokenizer file that was trained before."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np
import xxhash
from tokenizers import Tokenizer

from ssl_scale.data.decoding import FieldDecoder, UndecodableError, pad
from ssl_scale.data.json_entry import json_entry
from ssl_scale.data.seeds import Whole
from ssl_scale.errors import DataError
from ssl_scale.part import Count, Given, RoleName
from ssl_scale.types import Ragged


class TextField(FieldDecoder):
    """Text as token ids, cut at `max_tokens`.

    Args:
        extension: of the members.
        tokenizer: a tokenizer (the ``tokenizers`` library's JSON, as ``ssl-data tokenize`` writes),
            by role or path.
        max_tokens: longest sequence, special tokens included.
        begin: token put first; null for none.
        end: token put last, kept when the text is cut; null for none.
        entry: where ``.json`` members have the text, as in ``captions.0``; null for all of it.
        paths: role -> path.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        tokenizer: RoleName,
        max_tokens: Count,
        begin: str | None = "[CLS]",
        end: str | None = "[SEP]",
        entry: str | None = None,
        *,
        paths: Given[Mapping[str, str] | None] = None,
    ) -> None:
        super().__init__(extension)
        self.path = Path((paths or {}).get(tokenizer, tokenizer))
        self.max_tokens, self.entry = max_tokens, entry
        self._tokenizer = _open_tokenizer(self.path)
        self._first = [] if begin is None else [self.token_id(begin)]
        self._last = [] if end is None else [self.token_id(end)]
        self._room = max_tokens - len(self._first) - len(self._last)
        if self._room < 1:
            raise ValueError(
                f"max_tokens must leave room beside the special tokens, but is {max_tokens}"
            )

    @property
    def vocab_size(self) -> int:
        """How many tokens the tokenizer knows."""
        return self._tokenizer.get_vocab_size()

    def token_id(self, token: str) -> int:
        """The id of a token, such as ``[MASK]``.

        Raises:
            DataError: the tokenizer does not have it.
        """
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise DataError(
                f"{self.path}: must have the token {token!r}, but has not; train it with `ssl-data "
                "tokenize`, or name its own token (null for none) in the field"
            )
        return number

    def text(self, member: bytes, extension: str) -> str | None:
        """The text itself; None if JSON says that there is none.

        Raises:
            UndecodableError: the member is no UTF-8, or no such JSON.
        """
        content = json_entry(member, extension, self.entry)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise UndecodableError(f"must be UTF-8 text, but is not ({error})") from error

    def decode(self, member: bytes, extension: str) -> np.ndarray | None:
        """``[length]`` int64 ids."""
        if (text := self.text(member, extension)) is None:
            return None
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[: self._room]
        return np.array([*self._first, *ids, *self._last], dtype=np.int64)

    @cached_property
    def length_name(self) -> str:
        """Texts are counted by the tokenizer's contents; cutting and special tokens come later."""
        digest = xxhash.xxh3_64_hexdigest(self.path.read_bytes())
        entry = "" if self.entry is None else f"-{quote(self.entry, safe='')}"
        return f"{'+'.join(self.extensions)}{entry}-{digest}"

    @property
    def length_options(self) -> str:
        """The tokenizer, and which entry."""
        entry = "" if self.entry is None else f" --entry {self.entry}"
        return f"--extension {' '.join(self.extensions)} --tokenizer {self.path}{entry}"

    def count(self, member: bytes, extension: str) -> int | None:
        """Tokens of the whole text, without special ones."""
        if (text := self.text(member, extension)) is None:
            return None
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def lengths_of(self, counts: Whole) -> Whole:
        """Tokens after cutting, with special ones."""
        return np.minimum(counts, self._room) + len(self._first) + len(self._last)

    def missing(self) -> np.ndarray:
        """No tokens."""
        return np.zeros(0, np.int64)

    def collate(self, values: Sequence[np.ndarray]) -> Ragged:
        """Padded with zeros to the longest of the batch."""
        return pad(values)


def _open_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise DataError(
            f"{path}: must be a tokenizer's file, but there is none; bind it with `--data "
            "ROLE=PATH`, or make one with `ssl-data tokenize`"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(
            f"{path}: must be a tokenizer's file, but does not load ({error}); make one with "
            "`ssl-data tokenize`"
        ) from error
    # A file may carry padding and truncation of its own; lengths are ours to decide.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer

"""``ssl-data tokenize train``: a byte-level BPE for the texts of data sets."""

import argparse
from pathlib import Path

NAME = "tokenize"
SUMMARY = "train a tokenizer on the texts of data sets"
EXAMPLES = """\
examples:
  ssl-data tokenize train shards/stdlib_train --vocab-size 2000 --output shards/tokenizer
  ssl-data tokenize train shards/captions shards/code --extension txt --output shards/tokenizer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("train",), help="what to do")
    parser.add_argument(
        "datasets", type=Path, nargs="+", metavar="DATASET", help="folders from `ssl-data build`"
    )
    parser.add_argument(
        "--extension", default="txt", metavar="EXT", help="members that are texts [txt]"
    )
    parser.add_argument(
        "--vocab-size", type=int, default=32000, metavar="N", help="tokens at most [32000]"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where tokenizer.json goes"
    )


def run(args: argparse.Namespace) -> None:
    """Train, and print how well it fits."""
    from .console import say
    from .tokenizer_training import TOKENIZER_FILE, train_tokenizer

    figures = train_tokenizer(
        args.datasets, args.extension.lstrip(".").lower(), args.vocab_size, args.output
    )
    short = f" (of {args.vocab_size:,} asked for)" if figures.vocabulary < args.vocab_size else ""
    say(
        f"{args.output / TOKENIZER_FILE}: {figures.vocabulary:,} tokens{short} from "
        f"{figures.texts:,} texts; {figures.bytes_per_token:.2f} bytes a token, "
        f"{figures.tokens_per_word:.2f} tokens a word"
    )

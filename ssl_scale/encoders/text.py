"""Text transformers."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_scale.encoders.presets import TEXT, TextPreset, choose_size
from ssl_scale.encoders.transformer import (
    Pool,
    Position,
    TransformerEncoder,
    hidden_by,
    sequence_draw,
)
from ssl_scale.nn.embedding import Embedding
from ssl_scale.nn.mlp import FeedForwardKind
from ssl_scale.nn.norm import Norm
from ssl_scale.nn.trunk import Trunk
from ssl_scale.part import Count, Given, Positive, Probability, Whole
from ssl_scale.types import Attend, Features, Layout, Mask, View


class TextTransformer(TransformerEncoder):
    """A transformer on token ids.

    Papers: BERT, arXiv 1810.04805 (``norm_first: false``, ``norm_eps: 1.0e-12``, ``init_std:
    0.02``, ``pool: first``, ``segments: 2``); CLIP's text encoder, arXiv 2103.00020, section 2.4
    (``causal: true``, ``pool: last``, ``mlp: quick_gelu``, ``norm_eps: 1.0e-5``, ``max_tokens:
    77``; its field's ``end`` is the end-of-text token).

    Differs: the [CLS] token of ``pool: cls`` is a prefix of the encoder's own, not a word of the
    tokenizer, and has no position; ``first`` takes the tokenizer's.

    Args:
        preset: a size from the papers; arguments that are given override it.
        width: features of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: features inside the feed-forward layer, over the width.
        max_tokens: longest text that learned positions are made for.
        position: ``learned``, ``sincos`` or ``rotary``; the latter two know no longest text.
        pool: what the text's one vector is: ``cls`` adds a [CLS] token, which sees nothing under
            causal attention; ``mean`` of the words; ``first`` word, where the field puts a [CLS]
            there; ``last`` word, for causal attention.
        registers: further prefix tokens, which nobody reads.
        mlp: see `Trunk`; so for the rest.
        norm_first: pre-norm or post-norm.
        norm: kind of norm.
        norm_eps: its epsilon.
        qk_norm: whether queries and keys are normed.
        layer_scale: initial factor of residual branches.
        drop_path: chance to skip a branch of the last block, per crop.
        dropout: probability of zeroing an output of a branch.
        init_std: of linear layers; None means Xavier.
        recompute: compute blocks again in the backward pass, to save memory.
        stem_norm: a norm before the first block of a pre-norm trunk too.
        causal: whether a token sees only itself and what precedes it, also where full attention is
            asked for.
        segments: number of segments with a learned vector for each, added to their words; which is
            whose the view says in ``side["segment"]`` ``[batch, crops, tokens]``, 0 unless told.
        vocab_size: number of token ids.
        mask_token: id that stands for a hidden token.

    Raises:
        ValueError: sizes that do not fit together, or are missing without a preset.
    """

    def __init__(
        self,
        preset: TextPreset | None = None,
        width: Count | None = None,
        depth: Count | None = None,
        num_heads: Count | None = None,
        mlp_ratio: Positive | None = None,
        max_tokens: Count = 512,
        position: Position = "learned",
        pool: Pool = "cls",
        registers: Whole = 0,
        mlp: FeedForwardKind = "gelu",
        norm_first: bool = True,
        norm: Norm = "layer",
        norm_eps: Positive = 1e-6,
        qk_norm: bool = False,
        layer_scale: Positive | None = None,
        drop_path: Probability = 0.0,
        dropout: Probability = 0.0,
        init_std: Positive | None = None,
        recompute: bool = False,
        stem_norm: bool = False,
        causal: bool = False,
        segments: Whole = 0,
        *,
        vocab_size: Given[int],
        mask_token: Given[int | None] = None,
    ) -> None:
        size = choose_size(TEXT, preset, width, depth, num_heads, mlp_ratio)
        super().__init__(
            Trunk(
                size.width,
                size.depth,
                size.num_heads,
                mlp_ratio=size.mlp_ratio,
                mlp=mlp,
                norm_first=norm_first,
                norm=norm,
                norm_eps=norm_eps,
                qk_norm=qk_norm,
                layer_scale=layer_scale,
                drop_path=drop_path,
                dropout=dropout,
                init_std=init_std,
                recompute=recompute,
                stem_norm=stem_norm,
            ),
            width=size.width,
            head_width=size.width // size.num_heads,
            position=position,
            grid=(max_tokens,),
            pool=pool,
            registers=registers,
        )
        self.vocab_size, self.mask_token, self.causal = vocab_size, mask_token, causal
        self.embedding = Embedding(vocab_size, size.width)
        self.segments = Embedding(segments, size.width) if segments else None

    takes_packed = True

    def layout(self, view: View) -> Layout:
        """One token a place; a packed view is laid out as if each sample had a row of its own."""
        if view.lengths is not None:
            places = torch.arange(max(1, int(view.lengths.max())), device=view.lengths.device)
            return Layout((len(places),), (places < view.lengths[:, None])[:, None])
        return Layout((view.values.shape[-1],), view.valid)

    def forward(
        self,
        view: View,
        mask: Mask | None = None,
        attend: Attend = "full",
        keep: Sequence[str] = (),
    ) -> Features:
        """Encode token ids ``[batch, crops, tokens]``.

        Raises:
            ValueError: the values are no ids, a text is too long, or a mask needs the id that
                stands for hidden tokens and there is none.
        """
        if view.values.dim() != 3 or view.values.is_floating_point():
            raise ValueError(
                "values must be whole numbers [batch, crops, tokens], "
                f"but are {view.values.dtype} {list(view.values.shape)}"
            )
        valid = view.valid.flatten(0, 1)
        # Padding may hold any number, also one that is no id.
        ids = view.values.flatten(0, 1).masked_fill(~valid, 0)
        hidden = hidden_by(mask, "replace")
        if mask is not None and hidden is not None:
            ids = replaced_words(ids, hidden & valid, mask, view, self.mask_token, self.vocab_size)
        tokens = self.embedding(ids)
        if self.segments is not None:
            segment = view.side.get("segment", torch.zeros_like(view.values))
            tokens = tokens + self.segments(segment.flatten(0, 1).masked_fill(~valid, 0))
        hidden = hidden_by(mask, "input")
        if hidden is not None:
            tokens = tokens.masked_fill(hidden[..., None], 0)
        grid = (view.values.shape[-1],)
        if self.causal and attend == "full":
            attend = "causal"
        return self.encode(tokens, valid, view, grid, mask, attend, keep)


def replaced_words(
    ids: Int[Tensor, "texts tokens"],
    hidden: Bool[Tensor, "texts tokens"],
    mask: Mask,
    view: View,
    mask_token: int | None,
    vocab_size: int,
) -> Int[Tensor, "texts tokens"]:
    """Token ids with other ones where hidden, as the mask's `fill` chooses.

    Raises:
        ValueError: there is no id that stands for hidden tokens.
    """
    if mask_token is None:
        raise ValueError("mask_token must be given for masks of mode 'replace', but is None")
    if mask.fill is None:
        return ids.masked_fill(hidden, mask_token)
    fill = mask.fill.flatten(0, 1)
    # Any id but its own: the draw skips that one.
    other = sequence_draw(view).integers("replace", vocab_size - 1, ids.shape[1])
    if view.lengths is not None:
        document, place = view.documents()
        other = other[document, place][None]
    other = other + (other >= ids)
    replaced = torch.where(hidden & (fill == 1), other, ids)
    return replaced.masked_fill(hidden & (fill == 0), mask_token)

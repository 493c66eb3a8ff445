"""Text transformers: sizes, ids that stand for others, ids that are none."""

import pytest
import torch

from ssl_scale.encoders.text import TextTransformer
from ssl_scale.nn.embedding import Tied
from ssl_scale.part import Spec
from ssl_scale.types import Mask
from tests.encoders.inputs import MASK, VOCAB, text, texts

# Millions of parameters: Well-Read Students, table 1; BERT, section 3 (its 340M are rounded up from
# the released model's 335M).
PUBLISHED = {"tiny": 4.4, "mini": 11.3, "small": 29.1, "medium": 41.7, "base": 110, "large": 335}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(preset: str) -> None:
    with torch.device("meta"):
        encoder = TextTransformer(preset=preset, norm_first=False, vocab_size=30522)
    # BERT's pooler and segment embeddings, which we lack; our [CLS] is in its vocabulary.
    lacking = encoder.width**2 + encoder.width + 2 * encoder.width - encoder.width
    millions = (sum(p.numel() for p in encoder.parameters()) + lacking) / 1e6
    assert millions == pytest.approx(PUBLISHED[preset], rel=0.015)


def test_clip_base_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        encoder = TextTransformer(preset="clip_base", max_tokens=76, pool="last", vocab_size=49152)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions == pytest.approx(63, rel=0.015)  # section 2.4 of the paper


def test_vocabulary_comes_from_the_run() -> None:
    spec = Spec.of(TextTransformer, width=8, depth=1, num_heads=2)
    encoder = spec.build(vocab_size=11, mask_token=2, width=None)
    assert encoder.embedding.weight.shape == (11, 8)
    with pytest.raises(TypeError, match="needs the run-time value 'vocab_size'"):
        spec.build()


def replaced(fill: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    encoder, view = text(), texts()
    torch.manual_seed(5)
    hidden = (torch.rand(view.valid.shape) < 0.6) & view.valid
    seen: list[torch.Tensor] = []
    encoder.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(view, Mask(hidden, "replace", fill))
    encoder(view, Mask(hidden, "replace", fill))
    assert torch.equal(*seen)
    return seen[0].view(view.values.shape), view.values, hidden, view.valid


def test_hidden_words_are_replaced_before_they_are_embedded() -> None:
    ids, original, hidden, valid = replaced(None)
    assert (ids[hidden] == MASK).all()
    assert torch.equal(ids[valid & ~hidden], original[valid & ~hidden])


def test_fill_chooses_mask_other_word_or_itself() -> None:
    fill = (torch.arange(12) % 3).to(torch.int8).expand(3, 2, -1)
    ids, original, hidden, _ = replaced(fill)
    assert (ids[hidden & (fill == 0)] == MASK).all()
    others = ids[hidden & (fill == 1)]
    assert (others != original[hidden & (fill == 1)]).all()
    assert ((others >= 0) & (others < VOCAB)).all()
    assert len(others.unique()) > 3
    assert torch.equal(ids[hidden & (fill == 2)], original[hidden & (fill == 2)])


def test_other_words_cover_the_vocabulary_but_their_own() -> None:
    encoder = text(vocab_size=5)
    view = texts([[12]] * 400)
    view = view.but(values=view.values % 5)
    hidden = torch.ones_like(view.valid)
    seen: list[torch.Tensor] = []
    encoder.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(view, Mask(hidden, "replace", torch.ones_like(view.values, dtype=torch.int8)))
    own, other = view.values.flatten(), seen[0].flatten()
    for word in range(5):
        counts = torch.bincount(other[own == word], minlength=5)
        assert counts[word] == 0
        rest = counts[counts > 0].float()
        assert len(rest) == 4
        assert rest.min() / rest.max() > 0.7


def test_a_mask_without_its_id_is_refused() -> None:
    view = texts()
    with pytest.raises(ValueError, match="mask_token must be given for masks of mode 'replace'"):
        text(mask_token=None)(view, Mask(view.valid, "replace"))


def test_input_mask_zeroes_embeddings() -> None:
    encoder, view = text(), texts()
    hidden = (torch.rand(view.valid.shape) < 0.5) & view.valid
    stem = encoder(view, Mask(hidden, "input"), keep=("stem",)).kept["stem"]
    positions = encoder.position.table.expand_as(stem)
    torch.testing.assert_close(stem[hidden], positions[hidden])


def test_values_that_are_no_ids_are_refused() -> None:
    view = texts()
    with pytest.raises(ValueError, match=r"whole numbers .* but are torch.float32 \[3, 2, 12\]"):
        text()(view.but(values=torch.zeros(3, 2, 12)))
    with pytest.raises(ValueError, match="at most 8 tokens, but is 12"):
        text(max_tokens=8)(view)


def test_causal_words_do_not_depend_on_later_ones() -> None:
    encoder, view = text(pool="last"), texts([[12]], 12)
    changed = view.values.clone()
    changed[..., 8:] = (changed[..., 8:] + 1) % VOCAB
    before = encoder(view, None, "causal").tokens
    after = encoder(view.but(values=changed), None, "causal").tokens
    moved = (before - after).abs().amax(-1)[0, 0]
    assert moved[:8].max() == 0
    assert moved[8:].min() > 1e-6


def test_a_causal_encoder_is_causal_unasked() -> None:
    encoder, plain, view = text(pool="last", causal=True), text(pool="last"), texts()
    plain.load_state_dict(encoder.state_dict())
    asked = plain(view, None, "causal")
    assert torch.equal(encoder(view).tokens, asked.tokens)
    assert torch.equal(encoder(view).pooled, asked.pooled)
    assert not torch.equal(encoder(view).tokens, plain(view).tokens)
    diagonal = encoder(view, None, "diagonal").tokens
    assert torch.equal(diagonal, plain(view, None, "diagonal").tokens)


def test_the_embedding_can_be_the_output_layer_too() -> None:
    encoder, view = text(), texts()
    tied = Tied(encoder.embedding.weight).double()
    logits = tied(encoder(view).tokens)
    assert logits.shape == (3, 2, 12, VOCAB)
    logits.sum().backward()
    assert tied.weight is encoder.embedding.weight

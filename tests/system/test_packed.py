"""Packed texts give the losses and gradients of the same texts in rows of their own."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssl_scale.data.decoding import pad
from ssl_scale.data.views.text import TextView
from ssl_scale.encoders.text import TextTransformer
from ssl_scale.masking.token_mask import TokenMask
from ssl_scale.objectives.masked_tokens import MaskedTokens
from ssl_scale.system.system import NamedMask, System
from ssl_scale.types import Batch, Packed, Ragged

WORDS = 30


def texts(*lengths: int) -> Batch:
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = [torch.randint(3, WORDS, (n,), generator=generator).numpy() for n in lengths]
    keys = tuple(f"text-{number}" for number in range(len(ids)))
    seeds = torch.arange(100, 100 + len(ids)) * 7919
    return Batch("texts", {"text": pad(ids)}, seeds, keys)


def packed(batch: Batch) -> Batch:
    padded = batch.fields["text"]
    assert isinstance(padded, Ragged)
    return replace(batch, fields={"text": Packed.of(padded)})


def make_system(**options: object) -> System:
    torch.manual_seed(0)
    settings = {"pool": "mean", "dropout": 0.0, **options}
    encoder = TextTransformer(
        width=16, depth=2, num_heads=2, max_tokens=12, vocab_size=WORDS, mask_token=2, **settings
    )
    objective = MaskedTokens("text", "words", width=16, vocab_size=WORDS)
    masks = {"words": NamedMask(TokenMask(ratio=0.4, replace=0.5, random=0.3), "text", "text")}
    system = System({"text": encoder}, {"mlm": objective}, {"text": TextView("text")}, masks)
    return system.double()


def loss_and_gradients(system: System, batch: Batch) -> tuple[float, float, dict[str, Tensor]]:
    system.zero_grad()
    answers = system.answers(batch)
    loss = system.losses(answers)["mlm"]
    loss.total.backward()
    gradients = {
        name: p.grad.clone() for name, p in system.named_parameters() if p.grad is not None
    }
    count = system.counts(answers)["mlm"]
    return float(loss.total.detach()), float(count), gradients


@pytest.mark.parametrize(
    "options",
    [
        {"position": "learned"},
        {"position": "rotary", "pool": "last"},
        {"position": "sincos", "pool": "first"},
        {"drop_path": 0.5},
        {"segments": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("lengths", [(5, 12, 1, 7), (4, 4, 4), (6, 0, 3), (1,)])
def test_the_loss_and_its_gradient_are_those_of_the_unpacked_texts(
    lengths: tuple[int, ...], options: dict[str, object]
) -> None:
    system, batch = make_system(**options), texts(*lengths)
    value, count, gradients = loss_and_gradients(system, batch)
    packed_value, packed_count, packed_gradients = loss_and_gradients(system, packed(batch))
    assert packed_count == count
    assert packed_value == pytest.approx(value, rel=1e-10)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_each_text_has_a_vector_of_its_own(pool: str) -> None:
    system, batch = make_system(pool=pool).eval(), texts(5, 0, 12, 7)
    plain = system.answers(batch).named("mlm")
    row = system.answers(packed(batch)).named("mlm")
    torch.testing.assert_close(row.student("text").pooled, plain.student("text").pooled)
    assert row.view("text").present.tolist() == [[True], [False], [True], [True]]
    assert torch.equal(row.view("text").present, plain.view("text").present)
    tokens = row.student("text").tokens
    assert tokens.shape == (1, 1, 24, 16)
    torch.testing.assert_close(tokens[0, 0, :5], plain.student("text").tokens[0, 0, :5])
    torch.testing.assert_close(tokens[0, 0, 17:], plain.student("text").tokens[3, 0, :7])


@pytest.mark.parametrize("attend", ["full", "causal"])
def test_no_text_sees_another(attend: str) -> None:
    system, batch = make_system().eval(), packed(texts(5, 12, 7))
    value = batch.fields["text"]
    assert isinstance(value, Packed)
    changed = value.values.clone()
    changed[5:17] = 3
    other = replace(batch, fields={"text": Packed(changed, value.lengths)})
    one, two = (
        system.answers(b).named("mlm").student("text", attend=attend).tokens[0, 0]  # type: ignore[arg-type]
        for b in (batch, other)
    )
    assert torch.equal(one[:5], two[:5]) and torch.equal(one[17:], two[17:])
    assert not torch.allclose(one[5:17], two[5:17])


def test_a_rank_without_texts_runs_along_and_adds_nothing() -> None:
    system = make_system()
    value, count, gradients = loss_and_gradients(system, packed(texts(0)))
    assert (value, count) == (0, 0)
    assert all(not gradient.any() for gradient in gradients.values())


def test_an_encoder_with_tokens_of_its_own_refuses_packed_texts() -> None:
    system = make_system(pool="cls")
    with pytest.raises(ValueError, match="without tokens of its own .*take `pack` off the source"):
        loss_and_gradients(system, packed(texts(3, 4)))

"""The small layers: initial values, patches, prefix, mask fill, shared weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_scale.nn.embedding import Embedding, Tied
from ssl_scale.nn.linear import Linear
from ssl_scale.nn.patching import PatchEmbed, patch_grid, patchify, unpatchify
from ssl_scale.nn.tokens import MaskFill, Prefix


def test_xavier_treats_fused_projections_one_by_one() -> None:
    layer = Linear(64, 3 * 64, fused=3)
    bound = math.sqrt(6 / 128)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not layer.bias.any()


def test_truncated_normal_has_its_deviation_and_no_tails() -> None:
    layer = Linear(200, 100, init_std=0.02)
    assert layer.weight.abs().max() <= 0.04
    assert layer.weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.05)


def test_embedding_draws_with_the_given_deviation() -> None:
    assert Embedding(500, 40, init_std=0.1).weight.std().item() == pytest.approx(0.1, rel=0.05)


def test_patch_embedding_is_a_strided_convolution() -> None:
    embed = PatchEmbed(4, 3, 10)
    images = torch.randn(2, 3, 8, 12)
    kernel = embed.projection.weight.view(10, 3, 4, 4)
    expected = F.conv2d(images, kernel, embed.projection.bias, stride=4)
    torch.testing.assert_close(embed(images), expected.flatten(2).mT)


def test_unpatchify_inverts_patchify() -> None:
    images = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(unpatchify(patchify(images, 4), (2, 3), 4), images)
    assert patch_grid(8, 12, 4) == (2, 3)
    with pytest.raises(ValueError, match="multiples of patch=16, but are 225 x 224"):
        patch_grid(225, 224, 16)


def test_prefix_stands_before_every_sequence() -> None:
    prefix = Prefix(2, 5)
    tokens = torch.randn(3, 4, 5)
    out = prefix(tokens)
    torch.testing.assert_close(out[:, 2:], tokens)
    torch.testing.assert_close(out[:, :2], prefix.tokens.expand(3, 2, 5))


def test_mask_fill_replaces_hidden_tokens_only() -> None:
    fill, tokens = MaskFill(5), torch.randn(2, 3, 5)
    hidden = torch.tensor([[True, False, False], [False, True, True]])
    out = fill(tokens, hidden)
    torch.testing.assert_close(out[~hidden], tokens[~hidden])
    torch.testing.assert_close(out[hidden], fill.token.expand(3, 5))


def test_tied_weight_collects_gradients_of_both_uses() -> None:
    table = Embedding(7, 4)
    tied = Tied(table.weight)
    ids = torch.tensor([1, 5])
    logits = tied(table(ids))
    torch.testing.assert_close(logits, table.weight[ids] @ table.weight.T)
    logits.sum().backward()
    assert tied.weight is table.weight
    rows = table.weight.detach()
    expected = rows[ids].sum(0).expand(7, 4).clone()
    expected[ids] += rows.sum(0)
    torch.testing.assert_close(table.weight.grad, expected)

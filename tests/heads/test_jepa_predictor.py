import torch
from torch import Tensor

from ssl_scale.heads.jepa_predictor import JEPAPredictor
from ssl_scale.nn.packing import Packing
from ssl_scale.nn.position import sincos_table

GRID, WIDTH = (3, 4), 6


def predictor() -> JEPAPredictor:
    torch.manual_seed(0)
    return JEPAPredictor(8, 2, 2, width=WIDTH).double()


def inputs() -> list[Tensor]:
    targets = torch.zeros(2, 1, 2, 12, dtype=torch.bool)
    targets[0, 0, 0, [4, 5]] = targets[0, 0, 1, [5]] = True
    targets[1, 0, 0, [8, 9, 10]] = targets[1, 0, 1, [0]] = True
    origin = torch.tensor([[[0, 2, 11]], [[1, 3, 0]]])
    valid = torch.tensor([[[True, True, True]], [[True, True, False]]])
    return [torch.randn(2, 1, 3, WIDTH, dtype=torch.float64), origin, valid, targets]


def test_a_target_is_predicted_from_mask_tokens_and_the_context_at_their_places():
    """Written out for one set: [context + its positions, mask token + its positions]."""
    head, (tokens, origin, valid, targets) = predictor(), inputs()
    table = sincos_table(GRID, 8).double()
    context = head.embed(tokens[0, 0]) + table[origin[0, 0]]
    asked = head.fill.token + table[[4, 5]]
    sequence = torch.cat([context, asked])
    out, _ = head.trunk(sequence, packing=Packing.full(1, 5, sequence.device))
    expected = head.predict(out[3:])
    said = head(tokens, origin, valid, targets, GRID)
    assert said.shape == (7, WIDTH)
    torch.testing.assert_close(said[:2], expected)


def test_sets_and_crops_know_nothing_of_each_other():
    head, (tokens, origin, valid, targets) = predictor(), inputs()
    before = head(tokens, origin, valid, targets, GRID)
    without = targets.clone()
    without[0, 0, 0] = without[1, 0, 1] = False
    after = head(tokens, origin, valid, without, GRID)
    torch.testing.assert_close(after, before[2:6])


def test_tokens_that_are_not_valid_change_nothing():
    head, (tokens, origin, valid, targets) = predictor(), inputs()
    before = head(tokens, origin, valid, targets, GRID)
    tokens[1, 0, 2] = 50.0
    torch.testing.assert_close(head(tokens, origin, valid, targets, GRID), before)


def test_the_order_of_the_context_means_nothing_and_its_places_do():
    head, (tokens, origin, valid, targets) = predictor(), inputs()
    before = head(tokens, origin, valid, targets, GRID)
    turned = head(tokens.flip(2), origin.flip(2), valid.flip(2), targets, GRID)
    torch.testing.assert_close(turned, before)
    assert not torch.allclose(head(tokens, (origin + 1) % 12, valid, targets, GRID), before)

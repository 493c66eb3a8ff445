import math

import pytest
import torch

from ssl_scale.heads.batch_norm import SyncedBatchNorm
from ssl_scale.heads.mae_decoder import MAEDecoder, put_in_place
from ssl_scale.heads.predictor import MLPPredictor
from ssl_scale.heads.projector import LinearProjector, MLPProjector
from ssl_scale.heads.temperature import Temperature
from ssl_scale.part import Spec


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projectors_map_any_rows_to_their_width(norm, layers):
    projector = Spec.of(MLPProjector, hidden=7, out=5, layers=layers, norm=norm).build(width=6)
    assert projector.out == 5
    assert projector(torch.randn(4, 2, 6)).shape == (4, 2, 5)
    assert sum(isinstance(m, SyncedBatchNorm) for m in projector.modules()) == (
        layers - 1 if norm == "batch" else 0
    )


def test_no_parameter_has_a_gradient_that_is_zero_by_construction():
    """A bias before a batch norm would: Adam would turn its rounding noise into steps."""
    projector = MLPProjector(7, 5, 3, width=6).double()
    projector(torch.randn(16, 6, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad.norm() > 1e-6 for parameter in projector.parameters())


def test_predictors_keep_the_width():
    assert MLPPredictor(hidden=9, width=4)(torch.randn(3, 4)).shape == (3, 4)


def test_the_linear_projector_has_no_bias():
    assert not LinearProjector(3, width=4)(torch.zeros(2, 4)).any()


def test_temperature_starts_where_told_and_stops_at_the_bound():
    temperature = Temperature(0.07)
    assert temperature().item() == pytest.approx(1 / 0.07)
    temperature.log_scale.data.fill_(math.log(100) + 3)
    assert temperature().item() == pytest.approx(100)


def test_temperature_can_come_back_from_beyond_the_bound():
    temperature = Temperature(0.07)
    temperature.log_scale.data.fill_(math.log(100) + 0.05)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        temperature().backward()
        optimizer.step()
    assert temperature().item() < 99


def test_temperature_below_the_bound_is_refused():
    with pytest.raises(ValueError, match="1 / start must be at most 100"):
        Temperature(0.001)


def test_tokens_return_to_their_places_and_absent_ones_vanish():
    tokens = torch.tensor([[[1.0], [2.0], [9.0]]])
    origin = torch.tensor([[3, 1, 0]])
    valid = torch.tensor([[True, True, False]])
    grown, filled = put_in_place(tokens, origin, valid, 4)
    assert grown[0, :, 0].tolist() == [0, 2, 0, 1]
    assert filled[0].tolist() == [False, True, False, True]


def mae_inputs(num_prefix: int = 1) -> list[torch.Tensor]:
    return [
        torch.randn(2, 1, 3, 6),
        torch.tensor([[[0, 2, 5]], [[1, 2, 3]]]),
        torch.ones(2, 1, 3, dtype=torch.bool),
        torch.randn(2, 1, num_prefix, 6),
        torch.ones(2, 1, 6, dtype=torch.bool),
    ]


@pytest.mark.parametrize("num_prefix", [0, 2])
def test_the_decoder_answers_for_every_place(num_prefix):
    decoder = MAEDecoder(8, 1, 2, width=6, out=12)
    assert decoder(*mae_inputs(num_prefix), (2, 3)).shape == (2, 1, 6, 12)


def test_the_decoder_does_not_care_in_which_order_tokens_come():
    decoder = MAEDecoder(8, 1, 2, width=6, out=12)
    tokens, origin, *rest = mae_inputs()
    there = decoder(tokens, origin, *rest, (2, 3))
    back = decoder(tokens.flip(2), origin.flip(2), *rest, (2, 3))
    torch.testing.assert_close(there, back)


def test_the_decoder_tells_hidden_places_apart():
    decoder = MAEDecoder(8, 1, 2, width=6, out=12)
    out = decoder(*mae_inputs(), (2, 3))
    assert not torch.allclose(out[0, 0, 1], out[0, 0, 3])


def test_places_outside_of_a_picture_are_never_attended_to():
    decoder = MAEDecoder(8, 1, 2, width=6, out=12)
    tokens, origin, valid, prefix, places = mae_inputs()
    places[0, 0, 5] = valid[0, 0, 2] = False
    there = decoder(tokens, origin, valid, prefix, places, (2, 3))
    tokens[0, 0, 2] = 50.0
    again = decoder(tokens, origin, valid, prefix, places, (2, 3))
    torch.testing.assert_close(there[places], again[places])

import pytest
import torch

from ssl_scale.heads.batch_norm import SyncedBatchNorm
from ssl_scale.heads.prototypes import PrototypeHead, Prototypes
from ssl_scale.part import Spec


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_head_gives_a_cosine_for_each_prototype(norm, layers):
    given = {"prototypes": 9, "hidden": 7, "bottleneck": 5, "layers": layers, "norm": norm}
    head = Spec.of(PrototypeHead, **given).build(width=6)
    out = head(torch.randn(4, 2, 6))
    assert head.out == 9 and out.shape == (4, 2, 9)
    assert out.abs().max() <= 1 + 1e-6
    assert any(isinstance(module, SyncedBatchNorm) for module in head.modules()) == (
        norm == "batch" and layers > 1
    )


def test_the_head_is_three_layers_with_gelu_a_bottleneck_and_a_layer_with_weight_norm():
    """h of DINO, appendix C, with torch's own weight norm of gain 1."""
    head = PrototypeHead(9, 7, 5, width=6).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    linears = [layer.linear for layer in head.mlp.hidden] + [head.mlp.last]
    z = linears[2](torch.nn.GELU()(linears[1](torch.nn.GELU()(linears[0](x)))))
    z = z / z.square().sum(1, keepdim=True).sqrt()
    last = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 9, bias=False).double())
    last.parametrizations.weight.original0.data.fill_(1.0)
    last.parametrizations.weight.original1.data.copy_(head.prototypes.weight.data)
    torch.testing.assert_close(head(x), last(z), rtol=1e-12, atol=1e-12)
    last(z.detach()).square().sum().backward()
    head(x).square().sum().backward()
    direction = last.parametrizations.weight.original1.grad
    torch.testing.assert_close(head.prototypes.weight.grad, direction, rtol=1e-9, atol=1e-12)


def test_the_length_of_a_prototype_means_nothing():
    prototypes, x = Prototypes(5, 9), torch.randn(4, 5)
    before = prototypes(x)
    prototypes.weight.data.mul_(7.0)
    torch.testing.assert_close(prototypes(x), before)


def test_frozen_prototypes_get_no_gradient_and_let_it_through():
    head, x = PrototypeHead(9, 7, 5, width=6), torch.randn(4, 6, requires_grad=True)
    out = head(x, None, True)
    torch.testing.assert_close(out, head(x))
    out.square().sum().backward()
    assert head.prototypes.weight.grad is None
    assert x.grad is not None and x.grad.any()
    assert all(parameter.grad.any() for parameter in head.mlp.parameters())

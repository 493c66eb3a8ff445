"""What every head is: a module from tensors to tensors, chosen in the recipe."""

from torch import nn

from ssl_scale.part import Part


class Head(nn.Module, Part):
    """Projector, predictor, decoder, prototypes or quantizer; tensors in, tensors out."""

"""Projectors, predictors, decoders and prediction heads: tensors in, tensors out."""

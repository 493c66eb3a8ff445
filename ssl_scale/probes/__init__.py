"""Measurements of frozen features: k-NN, linear, zero-shot, retrieval, rank."""

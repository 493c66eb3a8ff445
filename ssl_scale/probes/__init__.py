"""Measurements of frozen features: k-NN, linear, zero-shot, retrieval, rank.

What belongs here: numbers from arrays. What does not: making the arrays (running an encoder over a
data set) and printing the numbers. A probe draws nothing by chance that is not seeded, so a score
can be computed again to the last digit.
"""

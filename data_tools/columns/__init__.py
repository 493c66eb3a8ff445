"""Columns on a manifest: what tools have found out about each sample of a data set.

The manifest has one row a sample. Every tool adds columns in a file of its own, in the manifest's
own order, sealed to the contents that it looked at; nothing is ever deleted, so that each step can
be redone alone and two curations of one pool can be compared.
"""

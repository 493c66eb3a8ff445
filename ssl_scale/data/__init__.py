"""From shards on disk to batches and views: index, order, mixture, decoding, collating, views.

Everything about data is a pure function of a counter; the README of this room says which and why.
What makes shards (``ssl-data``) does not belong here; what reads them does.
"""

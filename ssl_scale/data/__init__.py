"""From shards on disk to batches and views: index, order, mixture, decoding, collating, views."""

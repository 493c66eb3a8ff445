"""Whether a loss keeps the engine's contract: the same value and gradient however a batch is cut.

Everything here is synthetic: a small world of pictures, texts and labels, linear encoders that read
them, and processes of our own. What is looked at is any `Objective`, also a user's own.
"""

"""Views: from batch fields to what encoders are given, on the device, random per sample.

What belongs here: makers that crop, warp, recolour and normalise a whole batch in tensor
operations, and pass token fields on. What does not: decoding bytes and drawing masks.

The promise of the room: what a sample looks like is a function of its own seed and pixels alone, to
the last bit, whoever shares its batch. So nothing here reduces over the batch, and reductions and
transcendental functions, whose rounding depends on where a number lies in memory, are taken in
float64 and rounded.
"""

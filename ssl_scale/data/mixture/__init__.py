"""Which source feeds a step: a pure function of the weights, the seed and the step's number.

What a weight counts is the mixture's unit: batches (`OneSource`), samples (`EachSample`; tokens,
where weights are divided by the sources' mean lengths first), or fixed parts of every batch
(`AllSources`). After *any* number of draws each source's count is within one of its due (`turns`).
Weights may change over training (`stretches`), and sources may end (`timeline`): that too is worked
out from the step's number. There is no drift and nothing to save.
"""

from ssl_scale.data.mixture.mixture import AllSources as AllSources
from ssl_scale.data.mixture.mixture import Begin as Begin
from ssl_scale.data.mixture.mixture import EachSample as EachSample
from ssl_scale.data.mixture.mixture import Mixture as Mixture
from ssl_scale.data.mixture.mixture import OneSource as OneSource
from ssl_scale.data.mixture.mixture import Share as Share
from ssl_scale.data.mixture.mixture import make_mixture as make_mixture
from ssl_scale.data.mixture.shares import temperature_weights as temperature_weights
from ssl_scale.data.mixture.shares import whole_shares as whole_shares
from ssl_scale.data.mixture.timeline import Ending as Ending

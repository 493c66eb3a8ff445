"""Optimizers, parameter groups, and schedules as pure functions of progress.

An optimizer part says how parameters move; which of them decay and at what share of the learning
rate is decided by their names and shapes (`groups`); what the learning rate is at a moment follows
from progress alone, so a resumed run needs no scheduler state.
"""

"""The ``ssl-launch`` command: starts runs on this machine; imports nothing of training."""

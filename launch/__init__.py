"""The ``ssl-launch`` command: start runs on this machine or a cluster; imports nothing of training."""

"""A recipe's parts, built: the modules of a run and the live `Step`, in plain PyTorch."""

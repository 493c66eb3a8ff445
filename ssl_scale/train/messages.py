"""What a run tells the user, once, and what it keeps libraries from telling."""

import logging
import sys
import warnings

from ssl_scale.train.cluster import LaunchEnvironment


def say(text: str) -> None:
    """Tell the user once, whether the process group still exists or not."""
    if LaunchEnvironment().global_rank() == 0:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def show_own_messages() -> None:
    """Let rank 0 tell what parts have to say, such as what became of their first weights."""
    logger = logging.getLogger("ssl_scale")
    is_first = LaunchEnvironment().global_rank() == 0
    logger.setLevel(logging.INFO if is_first else logging.WARNING)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.propagate = False  # else whoever set up the root logger tells it again


def quiet_libraries() -> None:
    """Silence notices that no user can act on; their own warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for pattern in (".*_all_gather_base.*", ".*_reduce_scatter_base.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=pattern)
    for module in ("lightning.*", "deepspeed.*", "torch.distributed.*"):
        warnings.filterwarnings("ignore", module=module)

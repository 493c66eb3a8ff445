"""The ``data.cache`` section: where each node keeps shards that it reads from an address."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.data.node_cache import MAX_BYTES, NodeCache, default_folder
from ssl_scale.errors import RecipeError

_SIZE = re.compile(r"(?P<number>\d+([.]\d+)?) ?(?P<prefix>[KMGT])(?P<binary>i?)B")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class CachePlan:
    """A cache of remote shards, shared by the processes of a node.

    Args:
        folder: on a disk of the node, such as ``$SLURM_TMPDIR/shards``; unless told,
            ``$SSL_SCALE_CACHE``, or ``ssl_scale`` in the user's cache folder.
        max_bytes: what all shards in it may take, such as ``100GB`` or ``2TiB``.
    """

    folder: str | None = None
    max_bytes: str = f"{MAX_BYTES // 10**9}GB"

    def __post_init__(self) -> None:
        if not self.limit:
            raise ValueError(f"max_bytes must be above 0, but is {self.max_bytes!r}")

    @property
    def limit(self) -> int:
        """`max_bytes` as a number.

        Raises:
            ValueError: it is no size.
        """
        match = _SIZE.fullmatch(self.max_bytes)
        if match is None:
            raise ValueError(f"max_bytes must be a size like 100GB, but is {self.max_bytes!r}")
        unit = 1024 if match["binary"] else 1000
        return int(float(match["number"]) * unit ** _POWERS[match["prefix"]])

    def cache(self) -> NodeCache:
        """The cache on this node.

        Raises:
            RecipeError: the folder names a variable that is not set here.
        """
        if self.folder is None:
            return NodeCache(default_folder(), self.limit)
        folder = os.path.expandvars(self.folder)
        if "$" in folder:
            raise RecipeError(
                f"data.cache.folder: variables must be set on every node, but of {self.folder!r} "
                f"remains {folder!r}; set them, or name the folder"
            )
        return NodeCache(Path(folder).expanduser().absolute(), self.limit)

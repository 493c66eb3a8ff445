"""One engine, many recipes: distributed pretraining with mixed objectives.

``ssl_scale.load(folder)`` gives an exported encoder back. Importing this package imports neither
torch nor Lightning.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_scale.system.pretrained import Pretrained

__version__ = "0.1.0"


def load(folder: str | os.PathLike[str], **options: Any) -> "Pretrained":
    """Load what ``ssl-scale export`` wrote.

    Args:
        folder: the export folder.
        options: see `ssl_scale.system.pretrained.load`.
    """
    from ssl_scale.system.pretrained import load as load_pretrained

    return load_pretrained(folder, **options)

"""What a file of columns says of itself: which tool made it, how, and of which contents."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ssl_scale import __version__
from ssl_scale.data.index import Dataset
from ssl_scale.errors import DataError

_KEY = b"ssl_scale.columns"


@dataclass(frozen=True)
class Seal:
    """Stands in the metadata of a file of columns.

    Args:
        tool: its name.
        version: of the tool; raised when its output changes.
        arguments: what it was told (JSON).
        dataset: the fingerprint of the contents that it looked at.
        samples: how many those are, which is how many rows the file has.
        code_version: of this package.
    """

    tool: str
    version: int
    arguments: Mapping[str, Any]
    dataset: str
    samples: int
    code_version: str = __version__

    @classmethod
    def of(cls, tool: str, version: int, arguments: Mapping[str, Any], dataset: Dataset) -> "Seal":
        """The seal of columns of this data set."""
        return cls(tool, version, dict(arguments), dataset.fingerprint, dataset.num_samples)

    @classmethod
    def read(cls, where: str, metadata: Mapping[bytes, bytes] | None) -> "Seal":
        """The seal in a file's metadata.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            return cls(**json.loads((metadata or {})[_KEY]))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{where}: must be columns that a tool of ssl-data made, but bears no seal of one; "
                "move it away"
            ) from error

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """As Parquet keeps it."""
        return {_KEY: json.dumps(asdict(self), sort_keys=True).encode()}

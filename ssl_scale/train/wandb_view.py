"""Shows a run's figures in Weights & Biases, across resumes as one run.

The run's id is kept in the run's folder from before the first contact, so a resume finds it even
if the first attempt was killed while it connected. wandb drops lines whose own step goes back,
which a resume's does; so figures are drawn over a step of ours. ``WANDB_MODE=offline`` writes
under ``<run folder>/wandb``; segments of several attempts are joined by ``wandb sync --append``.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_scale.errors import SslScaleError
from ssl_scale.redact import redact
from ssl_scale.train.environment import write_atomically

ID_NAME = "wandb_id"


class WandbView:
    """One wandb run; make it on rank 0 only.

    Args:
        run_folder: keeps the id, and wandb's own files under ``wandb/``.
        name: the run's name in wandb.
        config: the resolved recipe as plain data; secrets are taken out.
        project: wandb project.
    """

    def __init__(
        self, run_folder: Path, name: str, config: Mapping[str, Any], project: str = "ssl-scale"
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise SslScaleError(
                "train.wandb needs the package wandb, which is not installed; "
                "install it or set train.wandb to false"
            ) from error
        self.id = keep_id(run_folder)
        self._run = wandb.init(
            id=self.id,
            resume="allow",
            project=project,
            name=name,
            config=redact(config),
            dir=str(run_folder),
            settings=wandb.Settings(console="off", disable_code=True, silent=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, line: Mapping[str, Any]) -> None:
        """Log one line; marks of superseded lines are not figures."""
        if line["kind"] == "superseded":
            return
        kind = line["kind"]
        figures = {
            name if kind == "train" else f"{kind}/{name}": value
            for name, value in line.items()
            if name not in ("kind", "step", "attempt", "time")
        }
        self._run.log(figures | {"step": line["step"], "attempt": line["attempt"]})

    def close(self) -> None:
        """Flush and finish the segment."""
        self._run.finish()


def keep_id(run_folder: Path) -> str:
    """The run's wandb id; made and written down at the first call."""
    path = Path(run_folder) / ID_NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, secrets.token_hex(4) + "\n")
    return path.read_text().strip()

"""The same run once more: the script and options of one that is done, in another folder."""

from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ..client.record import read_launches
from ..client.sbatch import options_of_folder, sbatch
from ..groups.dependencies import without_dependencies
from ..job.moved_script import moved, run_folder_of_script


@dataclass(frozen=True)
class CopiedRun:
    """A run that is to be submitted.

    Args:
        folder: it will have.
        script: it will be submitted with.
        options: of sbatch, each one word.
        directory: where the job will run.
    """

    folder: Path
    script: str
    options: tuple[str, ...]
    directory: Path

    @classmethod
    def of(cls, original: Path, folder: Path) -> "CopiedRun":
        """The last submission of a run, made over.

        Args:
            original: the run's folder.
            folder: an absolute path, where nothing is yet.

        Raises:
            SslScaleError: the run's script is gone or was changed, or the folder is there.
        """
        launches = read_launches(original)
        if not launches:
            raise SslScaleError(f"{original}: must be a run that was submitted, but is none")
        if folder.exists():
            raise SslScaleError(
                f"{folder}: must not be there yet, but is; remove it, or choose another --folder"
            )
        last = launches[-1]
        path = original / "launch" / Path(last["script"]).name
        try:
            script = path.read_text()
        except OSError as error:
            raise SslScaleError(
                f"{path}: must be the run's script, but cannot be read ({error})"
            ) from error
        before = options_of_folder(run_folder_of_script(script))
        now = dict(zip(before, options_of_folder(folder), strict=True))
        # What the first waited for has happened, and Slurm may have forgotten it.
        options = [now.get(word, word) for word in without_dependencies(last["options"])]
        return cls(folder, moved(script, folder), tuple(options), Path(last["directory"]))

    def submit(self) -> str:
        """Make the folder and submit; returns the job's number.

        Raises:
            SslScaleError: nothing can be written there, or sbatch refuses.
        """
        script = self.folder / "launch" / "job-001.sh"
        try:
            script.parent.mkdir(parents=True)
            (self.folder / "logs").mkdir()
            script.write_text(self.script)
        except OSError as error:
            raise SslScaleError(
                f"{self.folder}: must be a folder that can be written, but is not ({error}); "
                "choose another --folder"
            ) from error
        return sbatch(self.folder, script, self.options, self.directory)

"""A run's story in words: lines for one run, a row of a table for one of many."""

from .stops import Stop
from .story import Story
from .words import duration, figure

COLUMNS = (
    "run", "job", "state", "step", "loss", "samples/s", "left", "restarts", "last stop",
)  # fmt: skip
FIGURES = (3, 4, 5, 6, 7)
LABEL = 11


def lines_of(story: Story, now: float) -> list[str]:
    """The lines that tell of a run.

    Args:
        story: of the run.
        now: seconds since 1970.
    """
    progress = story.progress
    told = [("state", _state(story))]
    if story.job is not None:
        told.append(("job", _job(story)))
    told.append(("progress", f"{_reached(story)}; started {progress.attempts} times"))
    if story.state == "RUNNING" and progress.left_s is not None and progress.step_s is not None:
        told.append(
            ("time left", f"{duration(progress.left_s)}, at {figure(progress.step_s)} s a step")
        )
    if progress.written is not None:
        told.append(("last line", f"{duration(now - progress.written)} ago"))
    if progress.checkpoint is not None and progress.saved is not None:
        saved = duration(now - progress.saved)
        told.append(("checkpoint", f"step {progress.checkpoint:,}, {saved} ago"))
    if story.shortage:
        told.append(("disk", story.shortage))
    if story.stop is not None:
        told += _stop(story.stop)
    if progress.said:
        told.append(("last said", progress.said))
    return [str(story.folder), *(f"  {label:{LABEL}}{text}" for label, text in told)]


def row_of(story: Story, name: str) -> list[str]:
    """A run's row in a table; see `COLUMNS`.

    Args:
        story: of the run.
        name: what the run is called in the table.
    """
    progress = story.progress
    total = "" if progress.total is None else f"/{progress.total:,}"
    left_s = progress.left_s if story.state == "RUNNING" else None
    return [
        name,
        story.job or "-",
        story.state + (" silent" if story.silent_s is not None else ""),
        f"{progress.step:,}{total}",
        "-" if progress.loss is None else figure(progress.loss),
        "-" if progress.samples_per_s is None else figure(progress.samples_per_s),
        "-" if left_s is None else duration(left_s),
        str(story.restarts),
        "-" if story.stop is None else story.stop.reason,
    ]


def _state(story: Story) -> str:
    if story.slurm is None and story.problem:
        return f"{story.state}: {story.problem}"
    words = [story.state]
    is_slurms = story.slurm is not None and not story.slurm.is_over
    if story.state == "RUNNING" and story.holder is not None and not is_slurms:
        words.append(f"by {story.holder}")
    if story.state == "DIED":
        words.append(f"({story.holder} is gone, without a word)")
    if story.is_stopping:
        words.append("and told to save and stop")
    if story.silent_s is not None:
        waits = f": {story.waits_for}" if story.waits_for else ""
        words.append(f"but silent: no step has ended for {duration(story.silent_s)}{waits}")
    return " ".join(words)


def _job(story: Story) -> str:
    slurm = story.slurm
    if slurm is None:
        forgotten = (
            "Slurm could not be asked" if story.problem else "Slurm does not know it (any more)"
        )
        return f"{story.job}: {forgotten}, restarts {story.restarts}"
    reason = f" ({slurm.reason})" if slurm.reason else ""
    nodes = f" on {slurm.nodes}" if slurm.nodes and not slurm.is_over else ""
    waits = f", not before {slurm.start}" if slurm.state == "PENDING" and slurm.start else ""
    return f"{story.job}: {slurm.state}{reason}{nodes}{waits}, restarts {story.restarts}"


def _reached(story: Story) -> str:
    progress = story.progress
    words = f"step {progress.step:,}"
    if progress.total:
        words += f" of {progress.total:,} ({progress.step / progress.total:.0%})"
    if progress.loss is not None:
        words += f", loss {figure(progress.loss)}"
    if progress.samples_per_s is not None:
        words += f", {figure(progress.samples_per_s)} samples/s"
    return words


def _stop(stop: Stop) -> list[tuple[str, str]]:
    when = f"{stop.when}: " if stop.when else ""
    lines = [("last stop", f"{when}{stop.reason}")]
    return [*lines, ("", stop.error)] if stop.error else lines

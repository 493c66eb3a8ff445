"""Which samples each step trained on: to look at what came before a spike, or to audit a run."""

import json
from pathlib import Path

from ssl_scale import dist
from ssl_scale.part import Given
from ssl_scale.system.step import Answers
from ssl_scale.train.callbacks.observer import Observer

FOLDER = "samples"


class SampleLog(Observer):
    """Writes the keys of each batch to ``samples/rank-R.jsonl``, a line a batch.

    About as many bytes as the keys have, so some 20 GB for a billion samples.

    Args:
        run_folder: of the run.
        attempt: number of this start of the run.
    """

    def __init__(self, *, run_folder: Given[Path], attempt: Given[int]) -> None:
        self.path = run_folder / FOLDER / f"rank-{dist.rank()}.jsonl"
        self.attempt = attempt
        # A kill may have torn the last line: end it before the first of this attempt.
        self.start = "\n"

    def see_step(self, answers: Answers) -> None:
        """Append the batch's line; one write, so that a kill tears at most this line."""
        _, step, micro = answers.words
        batch = answers.batch
        place = {"step": step, "micro": micro, "attempt": self.attempt, "source": batch.source}
        line = self.start + json.dumps({**place, "keys": batch.keys}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
        self.start = ""


def read_samples(run_folder: Path) -> dict[int, list[tuple[str, str]]]:
    """What each step that counts was trained on, over all ranks and micro-batches.

    Of a step that was done more than once, after a kill or a spike, the last time counts.

    Returns:
        step -> (source, key) of each of its samples, sorted.
    """
    ranks = [_read_rank(path) for path in sorted((run_folder / FOLDER).glob("rank-*.jsonl"))]
    attempts: dict[int, int] = {}
    for rank in ranks:
        for step, (attempt, _) in rank.items():
            attempts[step] = max(attempt, attempts.get(step, 0))
    return {
        step: sorted(
            sample
            for rank in ranks
            if step in rank and rank[step][0] == attempt
            for sample in rank[step][1]
        )
        for step, attempt in sorted(attempts.items())
    }


def _read_rank(path: Path) -> dict[int, tuple[int, list[tuple[str, str]]]]:
    """Step -> the last attempt that did it, and its samples."""
    found: dict[int, tuple[int, list[tuple[str, str]]]] = {}
    latest = 0, 0
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
            step, attempt, source, keys = (
                line[name] for name in ("step", "attempt", "source", "keys")
            )
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill
        if attempt == latest[0] and step < latest[1]:  # it went back
            found = {at: held for at, held in found.items() if at < step or held[0] < attempt}
        latest = attempt, step
        if attempt > found.get(step, (0, []))[0]:
            found[step] = attempt, []
        if attempt == found[step][0]:
            found[step][1].extend((source, key) for key in keys)
    return found

"""Options that a user has for sbatch: passed on as they are, except for those that are ours."""

from collections.abc import Sequence

from ssl_scale.errors import SslScaleError

_LOGS = "logs lie in the run's folder, say it with --run-folder"
# What a run may not be given by options that are passed on, and what to do in its place.
_OURS = {
    "--array": "say it with --sweep",
    "--clusters": "submit from a login node of that cluster",
    "--dependency": "say it with --after",
    "--error": _LOGS,
    "--no-requeue": "say it with --max-restarts=0",
    "--nodes": "say it with --nodes before --",
    "--ntasks": "say it with --processes-per-node",
    "--output": _LOGS,
    "--signal": "say it with --stop-before",
    "--tasks-per-node": "say it with --processes-per-node",
    "--test-only": "say it with --dry-run",
    "--time": "say it with --time before --",
    "--wait": "watch it with ssl-launch status RUN --watch",
}
_SHORT = {
    "-a": "--array", "-M": "--clusters", "-d": "--dependency", "-e": "--error", "-N": "--nodes",
    "-n": "--ntasks", "-o": "--output", "-t": "--time", "-W": "--wait",
}  # fmt: skip
_FAMILY = "--ntasks-per-"
SHORTEST = len("--ar")  # sbatch takes beginnings of options for the whole


def passed_to_sbatch(words: Sequence[str]) -> list[str]:
    """Options of the user's for sbatch.

    Raises:
        SslScaleError: one is no option, so that sbatch would take it for the script, or one is
            ours to give.
    """
    passed_on = [word for word in words if word != "--"]
    for word in passed_on:
        if not word.startswith("-"):
            raise SslScaleError(
                "arguments for sbatch must be options of one word each, such as "
                f"--constraint=a100, but one is {word!r}; recipes stand together, before them"
            )
        if instead := _instead_of(word):
            raise SslScaleError(f"{word} must not be given to sbatch; {instead}")
    return passed_on


def _instead_of(word: str) -> str:
    """What to do where an option of sbatch is ours to give; empty if it is not."""
    if not word.startswith("--"):
        return _OURS.get(_SHORT.get(word[:2], ""), "")
    name = word.partition("=")[0]
    if name.startswith(_FAMILY):
        return _OURS["--ntasks"]
    begun = (option for option in _OURS if len(name) >= SHORTEST and option.startswith(name))
    return next((_OURS[option] for option in begun), "")

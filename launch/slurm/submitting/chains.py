"""Submitting a chain: all links are checked before one is queued, and all are queued or none."""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_scale.errors import SslScaleError

from ...fit_command import ssl_scale_program
from ..client.ending import take_back
from ..client.living import refuse_living
from ..client.record import content_of, put_back
from ..client.saying import tell
from ..groups.dependencies import afterok
from ..groups.groups import refuse_other_group
from ..groups.links import NAME, PREVIOUS, Link, write_links
from ..job.profile import Profile
from ..job.script import render
from .forecast import RecipeFault, roles_of
from .no_secrets import refuse_secrets
from .submission import Run, Submission, forecast, prepare, submit

Made = Mapping[str, tuple[Submission, str]]


def prepare_links(
    arguments: argparse.Namespace, folder: Path, links: Sequence[Link], profile: Profile
) -> tuple[list[Link], Made]:
    """Check and plan every link; nothing is written.

    Args:
        arguments: the parsed command line.
        folder: of the chain, an absolute path.
        links: of the graph; their bindings may be of more roles than recipes name.
        profile: what the cluster needs.

    Returns:
        The links with what they bind in truth; link's name -> what is submitted, and its script.

    Raises:
        SslScaleError: a link is wrong; says which.
    """
    kept: list[Link] = []
    made: dict[str, tuple[Submission, str]] = {}
    unused = {pair.partition("=")[0] for pair in arguments.data}
    with tempfile.TemporaryDirectory() as place:
        for link in links:
            try:
                roles = roles_of(ssl_scale_program(), link.recipe, arguments.set)
                unused -= roles.keys()
                own = _that_is_named(link, roles)
                submission = prepare(arguments, _run_of(own, arguments, folder, roles), profile)
                tell(f"{own.name}:")
                comes = [f"--run-of={role}={place}/{name}" for role, name in own.bindings.items()]
                found = forecast(arguments, submission, profile, comes)
                script = render(submission.job)
            except RecipeFault as fault:
                text = str(fault).replace(f"{place}/", "the recipe of ")
                raise RecipeFault(f"{link.name}: {text}", fault.exit_code) from fault
            except SslScaleError as error:
                raise SslScaleError(f"{link.name}: {error}") from error
            (Path(place) / own.name).write_text(found["resolved"])
            refuse_secrets([*submission.job.program, script, *submission.options], os.environ)
            kept.append(own)
            made[own.name] = submission, script
    if unused:
        raise SslScaleError(
            f"--data must name roles of the recipes, but none of them names {sorted(unused)[0]!r}"
        )
    return kept, made


def _that_is_named(link: Link, roles: Mapping[str, Sequence[str]]) -> Link:
    """The link, bound to others by the roles alone that its recipe starts parts from."""
    starts = {
        role
        for role, paths in roles.items()
        if any(path.startswith("init_from[") for path in paths)
    }
    bound = {role: name for role, name in link.bindings.items() if role in starts}
    return dataclasses.replace(link, bindings=bound)


def _run_of(
    link: Link, arguments: argparse.Namespace, folder: Path, roles: Mapping[str, Sequence[str]]
) -> Run:
    given = {pair.partition("=")[0]: pair for pair in arguments.data}
    # What the user says goes first; but the link before is the link before.
    ours = {
        role: f"{role}={folder / name}"
        for role, name in link.bindings.items()
        if role == PREVIOUS or role not in given
    }
    pairs = {**{role: pair for role, pair in given.items() if role in roles}, **ours}
    needed = dict.fromkeys([*link.after, *link.bindings.values()])
    return Run(
        link.recipe,
        folder / link.name,
        None,
        tuple(pairs.values()),
        tuple(arguments.set),
        tuple(folder / name for name in needed),
    )


def submit_links(
    folder: Path, links: Sequence[Link], made: Made, after: Sequence[str]
) -> list[str]:
    """Submit all links, each with what it waits for; returns their jobs.

    Args:
        folder: of the chain.
        links: of the graph.
        made: link's name -> what is submitted, and its script.
        after: jobs that the links wait for which wait for no other link.

    Raises:
        SslScaleError: one of the runs is in the queue, or a link cannot be submitted; those
            before it are cancelled.
    """
    refuse_other_group(folder, links)
    refuse_living([folder / link.name for link in links])
    folder.mkdir(parents=True, exist_ok=True)
    before = content_of(folder / NAME)
    write_links(folder, links)
    jobs: dict[str, str] = {}
    for link in links:
        waits = [jobs[name] for name in link.after] if link.after else list(after)
        submission, script = made[link.name]
        try:
            jobs[link.name] = submit(submission, script, afterok(waits))
        except BaseException as error:
            if not jobs:  # a corrected chain may have the folder
                put_back(folder / NAME, before)
            told = take_back([(folder / name, job) for name, job in jobs.items()])
            if isinstance(error, SslScaleError):
                raise SslScaleError(f"{link.name}: {error}; {told}") from error
            tell(told)
            raise
    return list(jobs.values())

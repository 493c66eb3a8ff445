"""A clean Debian root, and commands in it, where no container engine runs.

Every command has mounts and processes of its own, which end with it: nothing is left behind.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

APT_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
# What a shell does first in the new namespaces; its arguments: the root, where to start, who to be,
# how many folders to show inside, these, and the command.
ENTER = """
set -eu
root=$1 folder=$2 user=$3 count=$4
shift 4
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
while [ "$count" -gt 0 ]; do
    mkdir -p "$root$1"
    mount -o bind,ro "$1" "$root$1"
    shift
    count=$((count - 1))
done
exec chroot --userspec="$user" "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' - "$folder" "$@"
"""


def mirror() -> str | None:
    """Where Debian's packages come from: DEBIAN_MIRROR, else what this machine's apt uses."""
    if chosen := os.environ.get("DEBIAN_MIRROR"):
        return chosen
    files = [path for place in APT_SOURCES for path in (place, *place.glob("*")) if path.is_file()]
    words = [word for file in files for word in file.read_text().split()]
    found = [word for word in words if word.startswith("http") and word.endswith("/debian")]
    return found[0] if found else None


def make_root(suite: str, root: Path, source: str) -> None:
    """The smallest Debian of a suite, with this machine's way to resolve names."""
    command = ["debootstrap", "--variant=minbase", suite, str(root), source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr}"
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def run_in(
    root: Path,
    command: Sequence[str],
    *,
    folder: str,
    user: str,
    environment: Mapping[str, str],
    shown: Sequence[Path] = (),
) -> str:
    """Run a command in a root; what it prints. It must succeed.

    Args:
        root: of the file system.
        command: its words.
        folder: where it starts.
        user: number of the user, and of its group.
        environment: all of its variables.
        shown: folders of this machine, to be read at the same place inside.
    """
    folders = [str(path) for path in shown]
    words = [str(root), folder, f"{user}:{user}", str(len(folders)), *folders, *command]
    # The kernel ends everything inside when the first process of the namespace ends.
    unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
    done = subprocess.run(
        [*unshare, "sh", "-c", ENTER, "enter", *words],
        env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-5000:]}"
    return done.stdout

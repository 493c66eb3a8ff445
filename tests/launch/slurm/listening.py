"""Who listens where, as the kernel tells it."""

from collections.abc import Iterable
from pathlib import Path


def listening_addresses(pids: Iterable[int]) -> list[str]:
    """What these processes listen on, over TCP."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            inodes.add(str(descriptor.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                host, port = fields[1].split(":")
                octets = reversed(bytes.fromhex(host))
                found.append(f"{'.'.join(map(str, octets))}:{int(port, 16)}")
    return found

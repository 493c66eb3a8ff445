"""What is said beside a command's output, which scripts read."""

import sys


def tell(text: str) -> None:
    """Say something on standard error."""
    print(f"ssl-launch: {text}", file=sys.stderr)

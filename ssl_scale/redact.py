"""Takes secrets out of what is written down: reports, wandb's config, environment.json.

Recipes have no place for secrets, but bindings and overrides are free text: a storage address may
carry a password, an argument may be called ``api_key``. What looks like one is replaced.
"""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"(pass(word|wd|phrase)|secret|credential|(api|access|private|signing)_?key|auth(orization)?$"
    r"|^(.*_)?(access|api|auth|bearer|github|hf|hub|session|wandb)_?token$|^token$)",
    re.IGNORECASE,
)
_SECRET_VALUES = (
    (re.compile(r"(?P<keep>[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE), rf"\g<keep>{HIDDEN}@"),
    (
        re.compile(
            r"(?P<keep>[?&][^=&\s]*(sig|signature|token|key|password|secret|credential)[^=&\s]*=)"
            r"[^&\s]+",
            re.IGNORECASE,
        ),
        rf"\g<keep>{HIDDEN}",
    ),
    (re.compile(r"\b(hf_|gh[opsu]_|github_pat_|glpat-|sk-)[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
)


def redact_text(text: str) -> str:
    """The text with passwords in addresses and well-known token shapes replaced."""
    for pattern, replacement in _SECRET_VALUES:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any, key: str = "") -> Any:
    """A copy of plain data (mappings, sequences, scalars) in which secrets are replaced.

    Args:
        value: what was read from YAML or JSON.
        key: the name it stands under; a text under a secret's name is replaced whole.
    """
    if isinstance(value, Mapping):
        return {name: redact(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, key) for inner in value]
    if isinstance(value, str):
        return HIDDEN if value and _SECRET_KEY.search(key) else redact_text(value)
    return value

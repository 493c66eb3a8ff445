"""Nothing secret is written into a job's script or record: what looks like it is refused."""

import re
from collections.abc import Mapping, Sequence

from ssl_scale.errors import SslScaleError
from ssl_scale.redact import HIDDEN, redact, redact_text

# Shorter values, such as 1 or yes, stand in any script by chance.
SHORTEST = 8
# Looked ahead for, since the value of one may hold another: --set=a.b=c.
_ASSIGNMENT = re.compile(r"(?=\b([A-Za-z_][\w.]*)['\"]?\s*[=:]\s*['\"]?([^\s,'\"}]+))")
# Of variables, which are not recipes' keys: there is no TOKENIZER_KEY that may be told.
_VARIABLE = re.compile(r"TOKEN|PASS|SECRET|CREDENTIAL|(^|_)KEY(_|$)", re.IGNORECASE)


def refuse_secrets(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Look through what would be written down.

    Args:
        words: texts and command-line arguments.
        environment: of this shell; values of variables that are named like secrets are looked for.

    Raises:
        SslScaleError: one holds a secret; tells which without telling the secret.
    """
    values = {
        name: value
        for name, value in environment.items()
        if len(value) >= SHORTEST
        and (_VARIABLE.search(name) or redact({name: value})[name] == HIDDEN)
    }
    for word in words:
        for name, value in values.items():
            if value in word:
                raise _found(word.replace(value, HIDDEN), f"the value of {name}")
        for name, value in _ASSIGNMENT.findall(word):
            leaf = name.rpartition(".")[2]
            if redact({leaf: value})[leaf] == HIDDEN:
                raise _found(redact_text(word.replace(value, HIDDEN)), name)
        if redact_text(word) != word:
            raise _found(redact_text(word), "a password, a key or a token")


def _found(shown: str, what: str) -> SslScaleError:
    line = next((line for line in shown.splitlines() if HIDDEN in line), shown)
    return SslScaleError(
        f"what is submitted must hold no secret, but holds {what}: {line.strip()}; job scripts can "
        "be read by others: export it in the shell that submits, which the job inherits"
    )

"""Shapes and types are checked while tests run; `conftest.py` installs this as an import hook."""

from beartype import BeartypeConf, beartype

# A whole number is a good float argument, as PEP 484 has it: YAML writes 1 for 1.0.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

"""The ``ssl-data`` command: offline curation, one tool a file, over restartable units of work.

A tool is a pure function over shards (`work.py`) that any executor may run (`executors.py`), and a
``command_*.py`` with its arguments, which `cli.py` finds. What reads shards while training belongs
to ``ssl_scale.data``, not here.
"""

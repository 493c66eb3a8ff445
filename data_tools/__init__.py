"""The ``ssl-data`` command: offline curation, one tool a file, over restartable units of work."""

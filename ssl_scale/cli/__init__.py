"""The ``ssl-scale`` command: one subcommand a file; heavy rooms are imported when one runs."""

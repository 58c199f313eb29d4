"""The subcommands of ``uva``."""

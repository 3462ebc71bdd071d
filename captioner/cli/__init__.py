"""The ``captioner`` command: one module for each subcommand, and shared modules."""

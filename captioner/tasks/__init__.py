"""Tasks: each is one module with a ``TASK`` record, and one line in ``captioner.tasks.base.TASKS``."""

"""Training of any task. The entry point is ``captioner.train.trainer.train``."""

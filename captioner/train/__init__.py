"""Training: network, objective, optimizer, trainer and log. The entry point is ``captioner.train.trainer.train``."""

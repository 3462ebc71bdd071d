"""Training: material, network, objective, schedule, loop and record. ``captioner.train.loop.train`` is the way in."""

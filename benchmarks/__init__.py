"""How fast captioner is, as ratios: ``make bench``. One file a benchmark; ``run.py`` lists them."""

"""Measures of captioner's speed, as ratios: ``make bench``. One file per benchmark; ``run.py`` lists them."""

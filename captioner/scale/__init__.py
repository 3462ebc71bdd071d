"""Runs over millions of images: reproducible shards, and engines that process them.

A shard is done when its statistics (``00042.json``) exist; they are written last, by renaming. After an interruption,
the same command resumes from the files in the output folder.
"""

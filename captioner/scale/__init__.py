"""Millions of images: deterministic shards, engines that work through them, and one pure function from shard to output.

A shard is done when its statistics (``00042.json``) exist; they are written last, by renaming. Whatever is killed, the
same command goes on from the files in the output folder.
"""

"""Captions written where people need them: sidecar files, metadata inside images, alt texts of pages."""

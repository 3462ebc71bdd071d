"""Write captions to sidecar files, metadata inside images, and alt texts of pages."""

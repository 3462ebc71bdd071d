"""Features: vectors that networks compute from images, and the stores that hold them."""

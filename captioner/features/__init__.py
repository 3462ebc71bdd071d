"""Features: vectors that networks make of images, and the stores that keep them."""

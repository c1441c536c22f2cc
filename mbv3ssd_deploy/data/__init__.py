"""Images on disk, and images that we render."""

"""What is shipped: files that belong together, written all or nothing, read with checks."""

"""Training: from annotated images to a native checkpoint that knows its spec."""

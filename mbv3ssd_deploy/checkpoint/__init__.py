"""A checkpoint file becomes a net and its spec: read safely, recognised, fully accounted for."""

"""Renders the scenes of the demo and of the tests, and makes its untrained checkpoint."""

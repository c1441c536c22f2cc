"""Backbone weights that a training starts from: one file a code base, one table of all."""

"""The product's conscience: is what we ship still the checkpoint, on these images?

The room is not called `verify`: that name in the package is the front door's function.
"""

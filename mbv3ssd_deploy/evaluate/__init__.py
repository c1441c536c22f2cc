"""Average precision of a detector on a data set, on every runtime, with one metric code."""

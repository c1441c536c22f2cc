"""Words in, words out: one file a command."""

"""All-or-nothing files, child processes, records as JSON, signals."""

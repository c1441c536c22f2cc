"""Latency, load time, size and memory of any runtime; what runs the engines is in `runtimes`."""

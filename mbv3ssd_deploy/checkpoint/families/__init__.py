"""One file a checkpoint family; `table.py` lists them in the order they are tried."""

"""mbv3ssd-deploy."""

"""Compares a bundle with its checkpoint; `mbv3ssd_deploy.verify` is the function."""

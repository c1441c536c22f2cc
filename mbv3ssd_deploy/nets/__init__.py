"""DetectorSpec -> torch.nn.Module."""

"""What a device needs besides the network: the contract that `cpp_postprocess/` reads."""

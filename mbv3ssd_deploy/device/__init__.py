"""What a device needs besides the network: contract, golden results, a package of them all."""

"""What every forward pass stands on: device, network, processes, allocator."""

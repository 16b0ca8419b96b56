"""Device, network, image reader, distributed processes and allocator."""

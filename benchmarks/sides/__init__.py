"""The sides of the measurements: each a program of its own, from command to model file."""

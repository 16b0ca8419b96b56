"""What an installation can do, and what is amiss with it: `zoo doctor`."""

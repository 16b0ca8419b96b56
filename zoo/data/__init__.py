"""Data that every task shares: listing, splitting, decoding, transforms and loading of images."""

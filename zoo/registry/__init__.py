"""Plugins, backbone sources and registry files: all that resolves a name. No torch."""

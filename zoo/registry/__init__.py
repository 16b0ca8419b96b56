"""Plugins, backbone sources and registry files: everything that answers a name. No torch."""

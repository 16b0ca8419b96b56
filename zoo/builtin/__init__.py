"""The adapters that zoo ships: torchvision's and timm's networks, through everyone's hooks."""

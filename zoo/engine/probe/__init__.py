"""A linear head solved to its optimum on cached features."""

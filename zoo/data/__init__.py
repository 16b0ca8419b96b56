"""Images: where they lie, how they split, and how a file becomes what a network sees."""

"""Features (inputs of the heads), computed once per image and cached."""

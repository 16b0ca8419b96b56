"""Networks in use: predict, evaluate, embed, rank."""

"""Inference with trained and pretrained networks: predict, evaluate, embed, rank."""

"""A whole fine-tuning: prepare, train, write the run folder."""

"""Fine-tuning: prepare, train, write the run folder."""

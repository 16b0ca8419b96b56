"""The engine: plan, phases, features, the loop, schedules, metrics."""

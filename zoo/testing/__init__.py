"""For those who write plugins: what their tests need."""

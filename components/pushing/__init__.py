"""What becomes of a model that passed its gates: pushing it, and what is known of those that were pushed."""

"""The two-stage recommender: the model that retrieves and ranks, and the component that builds it."""

"""What a trained model becomes: its signatures, its heads and the metrics that these compute."""

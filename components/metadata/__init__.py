"""What the metadata store says of artifacts, whatever runner recorded them."""

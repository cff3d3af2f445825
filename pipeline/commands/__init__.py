"""The sub-commands of `movielens`."""

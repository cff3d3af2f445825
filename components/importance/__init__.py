"""Which features matter: permutation importance, the DCN's cross weights, and the report of both."""

"""Client of the recommender for applications; over REST it needs neither TensorFlow nor TFX."""

from serving.client.recommender import (
    ModelNotFoundError,
    Recommendation,
    RecommenderClient,
    ServerUnreachableError,
    ServingClientError,
    wait_until_available,
)

__all__ = [
    "ModelNotFoundError",
    "Recommendation",
    "RecommenderClient",
    "ServerUnreachableError",
    "ServingClientError",
    "wait_until_available",
]

"""Client of the recommender for applications; over REST it needs neither TensorFlow nor TFX."""

from serving.client.errors import (
    ModelNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
    ServingClientError,
)
from serving.client.recommender import Recommendation, RecommenderClient, wait_until_available

__all__ = [
    "ModelNotFoundError",
    "Recommendation",
    "RecommenderClient",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "ServingClientError",
    "wait_until_available",
]

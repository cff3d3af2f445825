"""Client of the recommender for applications; over REST it needs neither TensorFlow nor TFX."""

from serving.client.recommender import Recommendation, RecommenderClient, wait_until_available
from serving.client.transports import ModelNotFoundError, ServerUnreachableError, ServingClientError

__all__ = [
    "ModelNotFoundError",
    "Recommendation",
    "RecommenderClient",
    "ServerUnreachableError",
    "ServingClientError",
    "wait_until_available",
]

"""The client of the recommender, for applications. Over REST it needs no TensorFlow; over gRPC its stubs do."""

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

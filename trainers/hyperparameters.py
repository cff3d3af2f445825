"""Hyper-parameters of the four models, with their ranges."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Distribution = Literal["none", "mirrored", "multi_worker"]


class Task(StrEnum):
    """What a model predicts, and is therefore measured by.

    RETRIEVAL: scores of all movies, measured by recall and NDCG. RATING: stars, by RMSE and MAE. LIKE: the probability
    of 4 or 5 stars against 1 or 2, by AUC and log-loss.
    """

    RETRIEVAL = "retrieval"
    RATING = "rating"
    LIKE = "like"


class Hyperparameters(BaseModel):
    """What every model has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(0, ge=0, description="Seed of initial weights, shuffling and dropout.")
    epochs: int = Field(5, ge=1, description="Most passes over the train split.")
    patience: int = Field(2, ge=1, description="Epochs without a better eval metric before training stops.")
    batch_size: int = Field(2048, ge=1, description="Ratings in a training step.")
    learning_rate: float = Field(2e-3, gt=0, description="Adam's initial learning rate; it decays along a cosine.")
    warm_start: bool = Field(
        False,
        description="Start from the weights of the latest blessed model that was trained on other data, instead of "
        "random ones; a Tuner's trials never do.",
    )
    distribution: Distribution = Field(
        "none",
        description="none: one device. mirrored: all GPUs of this machine share each batch. multi_worker: so do the "
        "machines that TF_CONFIG names; each runs the same Trainer, and the chief's outputs count.",
    )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        raise NotImplementedError


class EmbeddingHyperparameters(BaseModel):
    """What every tower has."""

    model_config = Hyperparameters.model_config

    embedding_dim: int = Field(64, ge=1, description="Width of the embeddings.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped in training.")
    l2: float = Field(1e-6, ge=0, description="L2 penalty on the embeddings.")


class RetrievalHyperparameters(EmbeddingHyperparameters, Hyperparameters):
    """Two-tower retriever."""

    hidden_units: list[PositiveInt] = Field([128], description="Hidden layers of the query tower.")
    recent_movies: int = Field(5, ge=0, description="Latest movies of a history that keep a place of their own.")
    id_dropout: float = Field(
        0.2, ge=0, le=1, description="Share of train rows whose user the query tower is not told; 1 for no user ids."
    )
    temperature: float = Field(1.0, gt=0, description="Logits are divided by it.")
    loss: Literal["softmax", "in_batch"] = Field(
        "softmax",
        description="softmax: over the whole catalogue. in_batch: over the movies of the batch, corrected for their "
        "popularity; for catalogues too large to be encoded in every step.",
    )
    hard_negatives: int | None = Field(
        None, ge=1, description="Highest-scored negatives of a row that count with in_batch; null for all."
    )
    positives: Literal["watched", "liked"] = Field(
        "watched",
        description="What is to be retrieved: watched, every rated movie; liked, those of 4 and 5 stars. Other train "
        "rows have no retrieval loss. Metrics are those of every rated movie either way.",
    )

    @model_validator(mode="after")
    def _loss_has_negatives(self) -> Self:
        if self.loss == "softmax" and self.hard_negatives is not None:
            raise ValueError(
                f"hard_negatives should be null, or loss in_batch; received {self.hard_negatives} with {self.loss}"
            )
        negatives = self.batch_size - 1
        if self.loss == "in_batch" and negatives < (self.hard_negatives or 1):
            raise ValueError(
                f"batch_size should be greater than hard_negatives, and than 1, with loss in_batch; received "
                f"{self.batch_size} with hard_negatives {self.hard_negatives}"
            )
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task.RETRIEVAL,)


class NetworkHyperparameters(EmbeddingHyperparameters):
    """A network of cross layers and deep layers over embeddings."""

    # The network has one for each feature, side by side.
    embedding_dim: int = Field(32, ge=1, description="Width of the embedding of each feature.")
    table_l2: float = Field(
        0.0,
        ge=0,
        description="Like l2, but the same for every value of a feature, however often it occurs: in ratings, over "
        "whose number it is divided. Values that occur less often than that are held near 0, as in matrix "
        "factorisation, so that a feature of many values has to be worth them.",
    )
    structure: Literal["stacked", "parallel", "deep"] = Field(
        "stacked",
        description="Deep layers after the cross layers, or beside them; deep: dense layers with as many weights in "
        "place of the cross layers, to compare with.",
    )
    cross_layers: int = Field(2, ge=1, description="Number of cross layers.")
    projection_dim: int | None = Field(None, ge=1, description="Rank of the cross weights; null for full rank.")
    cross_l2: float = Field(1e-6, ge=0, description="L2 penalty on the cross weights.")
    hidden_units: list[PositiveInt] = Field([192, 192], min_length=1, description="Layers of the deep part.")
    max_norm: float | None = Field(
        None, gt=0, description="Largest norm of the weights that lead to a unit of the deep part; null for no bound."
    )


class DCNHyperparameters(NetworkHyperparameters, Hyperparameters):
    """Deep & cross network, version 2."""

    objective: Literal["rating", "like"] = Field(
        "rating",
        description="rating: stars, by squared error. like: the probability of 4 or 5 stars against 1 or 2, by "
        "cross-entropy; ratings of 3 stars count nowhere. A model of one cannot be held against a blessed one of the "
        "other: a pipeline that changes its objective needs another output folder.",
    )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task(self.objective),)


class RatingTowerHyperparameters(NetworkHyperparameters):
    """Two experts for ratings: a factor model, and a network that also reads the rated history."""

    max_norm: float | None = Field(
        3.0, gt=0, description="Largest norm of the weights that lead to a unit of the deep part; null for no bound."
    )
    factor_dim: int = Field(48, ge=1, description="Number of factors.")
    factor_l2: float = Field(0.075, ge=0, description="L2 penalty on the factors.")
    bias_l2: float = Field(0.02, ge=0, description="L2 penalty on user and movie biases.")
    attention_dim: int = Field(16, ge=1, description="Width of the vectors that attend to the rated history.")
    attention_l2: float = Field(100.0, ge=0, description="table_l2 of these vectors.")


class RankingHyperparameters(RatingTowerHyperparameters, Hyperparameters):
    """Rating predictor."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task.RATING,)


class JointHyperparameters(RetrievalHyperparameters):
    """Retrieval and rating in one model."""

    rating: RatingTowerHyperparameters = Field(
        default_factory=RatingTowerHyperparameters, description="The rating tower."
    )
    shared: bool = Field(True, description="The rating tower also reads how well query and movie go together.")
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="fixed: by the two weights below. uncertainty: by weights that are learnt from each task's noise.",
    )
    retrieval_weight: float = Field(1.0, ge=0, description="Weight of the retrieval loss (mean cross-entropy, nats).")
    rating_weight: float = Field(1.0, ge=0, description="Weight of the rating loss (squared error).")

    @model_validator(mode="after")
    def _weights_are_fixed_or_learnt(self) -> Self:
        if self.weighting == "uncertainty" and (self.retrieval_weight, self.rating_weight) != (1, 1):
            raise ValueError(
                "retrieval_weight and rating_weight should be 1 with weighting uncertainty; received "
                f"{self.retrieval_weight} and {self.rating_weight}"
            )
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task.RETRIEVAL, Task.RATING)

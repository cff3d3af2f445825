"""Hyper-parameters of the four models, with their ranges."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Hyperparameters(BaseModel):
    """What every model has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(0, ge=0, description="Seed of initial weights, shuffling and dropout.")
    epochs: int = Field(5, ge=1, description="Most passes over the train split.")
    patience: int = Field(2, ge=1, description="Epochs without a better eval metric before training stops.")
    batch_size: int = Field(2048, ge=1, description="Ratings in a training step.")
    learning_rate: float = Field(2e-3, gt=0, description="Adam's initial learning rate; it decays along a cosine.")
    embedding_dim: int = Field(64, ge=1, description="Width of the id embeddings.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped in training.")
    l2: float = Field(1e-6, ge=0, description="L2 penalty on the embeddings.")


class RetrievalHyperparameters(Hyperparameters):
    """Two-tower retriever."""

    hidden_units: list[PositiveInt] = Field([128], description="Hidden layers of the query tower.")
    temperature: float = Field(1.0, gt=0, description="Logits are divided by it.")


class RankingHyperparameters(Hyperparameters):
    """Rating predictor."""

    hidden_units: list[PositiveInt] = Field([128, 64], min_length=1, description="Layers of the deep tower.")
    max_norm: float = Field(3.0, gt=0, description="Largest norm of a unit's incoming weights.")


class DCNHyperparameters(Hyperparameters):
    """Deep & cross network, version 2."""

    structure: Literal["stacked", "parallel"] = Field(
        "stacked", description="Deep layers after the cross layers, or beside them."
    )
    cross_layers: int = Field(2, ge=1, description="Number of cross layers.")
    projection_dim: int | None = Field(None, ge=1, description="Rank of the cross weights; null for full rank.")
    hidden_units: list[PositiveInt] = Field([192, 192], min_length=1, description="Layers of the deep part.")


class JointHyperparameters(RetrievalHyperparameters):
    """Retrieval and rating in one model."""

    rating_hidden_units: list[PositiveInt] = Field([128, 64], min_length=1, description="Layers of the rating head.")
    max_norm: float = Field(3.0, gt=0, description="Largest norm of a rating head unit's incoming weights.")
    retrieval_weight: float = Field(1.0, ge=0, description="Weight of the retrieval loss (mean cross-entropy, nats).")
    rating_weight: float = Field(1.0, ge=0, description="Weight of the rating loss (mean squared error).")

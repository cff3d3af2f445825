"""Hyper-parameters of the four models, with their permitted ranges."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Distribution = Literal["none", "mirrored", "multi_worker"]

# NumPy's generator, which Keras seeds with the same number as TensorFlow's, takes 32 bits.
MAX_SEED = 2**32 - 1

# The largest values that are accepted. They are far beyond what helps a model, and say early what TensorFlow would
# refuse late, with another error: numbers that do not fit its integers, or overflow its float32, and layers that fit no
# machine's memory. Smaller values may still need more memory than there is.
_MAX_EPOCHS, _MAX_BATCH, _MAX_WIDTH, _MAX_LAYERS, _MAX_MOVIES = 100_000, 2**31 - 1, 16_384, 100, 10_000
_MAX_FLOAT, _MIN_TEMPERATURE = 1e9, 1e-6
_MAX_SESSION = 2**31 - 1  # Seconds.

Width = Annotated[PositiveInt, Field(le=_MAX_WIDTH)]


class Task(StrEnum):
    """What a model predicts, and is therefore measured by.

    RETRIEVAL: scores of all movies, measured by recall and NDCG. RATING: stars, by RMSE and MAE. LIKE: the probability
    of 4 or 5 stars against 1 or 2, by AUC and log-loss.
    """

    RETRIEVAL = "retrieval"
    RATING = "rating"
    LIKE = "like"


class HiddenShares(BaseModel):
    """How often parts of what is known of a person are hidden in training, so that a model learns to do without."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id_dropout: float = Field(
        0.02, ge=0, lt=1, description="Share of train rows in which the model is not told who the person is."
    )
    demographics_dropout: float = Field(
        0.02, ge=0, lt=1, description="Share of train rows without id, gender, age, occupation and zip code."
    )
    moment_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of train rows without the time of the rating. Has an effect where the model reads it: on "
        "retrieval, on the joint model and, with shared_state, on its rating tower.",
    )
    clock_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of train rows without hour and date of the rating. With query sequence, it is still known "
        "how long before it others were. Has an effect where moment_dropout has.",
    )
    history_dropout: float = Field(
        0.02, ge=0, lt=1, description="Share of train rows without id and rated history, like those of new people."
    )


class Hyperparameters(HiddenShares):
    """Hyper-parameters that every model has."""

    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of initial weights, shuffling and dropout.")
    epochs: int = Field(5, ge=1, le=_MAX_EPOCHS, description="Maximum number of passes over the train split.")
    patience: int = Field(2, ge=1, description="Training stops after this many epochs without a better eval metric.")
    batch_size: int = Field(2048, ge=1, le=_MAX_BATCH, description="Ratings in a training step.")
    learning_rate: float = Field(
        2e-3, gt=0, le=_MAX_FLOAT, description="Adam's initial learning rate; it decays along a cosine."
    )
    warm_start: bool = Field(
        False,
        description="Start from the weights of the latest blessed model that was trained on other data, instead of "
        "newly initialised ones. A Tuner's trials never start from another model.",
    )
    distribution: Distribution = Field(
        "none",
        description="none: one device. mirrored: all GPUs of this machine share each batch. multi_worker: all machines "
        "that TF_CONFIG names share each batch; each runs the same Trainer, and only the chief's outputs are kept.",
    )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        raise NotImplementedError


class EmbeddingHyperparameters(BaseModel):
    """Hyper-parameters that every tower has."""

    model_config = Hyperparameters.model_config

    embedding_dim: Width = Field(64, description="Width of the embeddings.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped in training.")
    l2: float = Field(1e-6, ge=0, le=_MAX_FLOAT, description="L2 penalty on the embeddings that a batch looks up.")


class RetrievalHyperparameters(EmbeddingHyperparameters, Hyperparameters):
    """Hyper-parameters of the two-tower retriever."""

    query: Literal["pooled", "sequence"] = Field(
        "pooled",
        description="How the query tower reads what a person rated. pooled: by weighted means. sequence: one rating "
        "after another, by how long before the moment of asking each was; it finds more, and an answer to somebody who "
        "tells a history takes longer.",
    )
    hidden_units: list[Width] = Field(
        [128], max_length=_MAX_LAYERS, description="With query pooled, widths of the query tower's hidden layers."
    )
    recent_movies: int = Field(
        5,
        ge=0,
        le=_MAX_MOVIES,
        description="With query pooled, number of latest history movies that the query tower also reads one by one.",
    )
    blocks: int = Field(
        4, ge=1, le=_MAX_LAYERS, description="With query sequence, how often events are mixed into later ones."
    )
    attention_heads: int = Field(
        2, ge=1, le=_MAX_WIDTH, description="With query sequence, ways in which that is done at once."
    )
    session: int = Field(
        30,
        ge=0,
        le=_MAX_SESSION,
        description="With query sequence, seconds after somebody's latest rating for which it counts how long ago that "
        "was; what is asked later is answered as at an unknown moment. The longer, the more a model finds in the "
        "session, and the smaller is the share of it that it finds later.",
    )
    times_dropout: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="With query sequence, share of people's ratings without their times, like those of people who tell "
        "what they rated but not when.",
    )
    id_dropout: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of train rows in which the model is not told who the person is; 1 to use no user ids at "
        "all.",
    )
    demographics_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of train rows without id, gender, age, occupation and zip code."
    )
    history_dropout: float = Field(
        0.05, ge=0, lt=1, description="Share of train rows without id and rated history, like those of new people."
    )
    temperature: float = Field(
        1.0,
        ge=_MIN_TEMPERATURE,
        le=_MAX_FLOAT,
        description="Divisor of the dot products of queries and candidates, before the movie biases are added.",
    )
    loss: Literal["softmax", "in_batch"] = Field(
        "softmax",
        description="softmax: cross-entropy over the whole catalogue. in_batch: over the movies of the batch, "
        "corrected for their popularity; for catalogues too large to be encoded in every step. With query sequence, a "
        "batch has the rows of few people, whose movies are alike.",
    )
    hard_negatives: int | None = Field(
        None, ge=1, description="With loss in_batch, how many of a row's highest-scored negatives count; null for all."
    )
    positives: Literal["watched", "liked"] = Field(
        "watched",
        description="Movies to retrieve. watched: every rated movie. liked: movies rated 4 or 5 stars; other train "
        "rows have no retrieval loss. The metrics count every rated movie either way.",
    )

    @model_validator(mode="after")
    def _loss_has_negatives(self) -> Self:
        if self.loss == "softmax" and self.hard_negatives is not None:
            raise ValueError(
                f"hard_negatives should be null, or loss in_batch; received {self.hard_negatives} with {self.loss}"
            )
        if self.query == "sequence" and self.embedding_dim % self.attention_heads:
            raise ValueError(
                f"embedding_dim should be a multiple of attention_heads; received {self.embedding_dim} and "
                f"{self.attention_heads}"
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
    """Hyper-parameters of a network of cross layers and deep layers over embeddings."""

    # Narrower than in the towers, since the network concatenates the embeddings of all features.
    embedding_dim: Width = Field(32, description="Width of the embedding of each feature.")
    table_l2: float = Field(
        0.0,
        ge=0,
        le=_MAX_FLOAT,
        description="L2 penalty on whole embedding tables, the same for frequent and rare values of a feature. Its "
        "unit is ratings: it is divided by the number of train ratings. Embeddings of values with fewer ratings than "
        "table_l2 stay near 0, as in matrix factorisation, unless they improve the fit by much.",
    )
    structure: Literal["stacked", "parallel", "deep"] = Field(
        "stacked",
        description="stacked: the deep layers follow the cross layers. parallel: both read the embeddings. deep: dense "
        "layers with about as many weights replace the cross layers, for comparison.",
    )
    cross_layers: int = Field(2, ge=1, le=_MAX_LAYERS, description="Number of cross layers.")
    projection_dim: Width | None = Field(None, description="Rank of the cross layers' weights; null for full rank.")
    cross_l2: float = Field(1e-6, ge=0, le=_MAX_FLOAT, description="L2 penalty on the cross layers' weights.")
    hidden_units: list[Width] = Field(
        [192, 192], min_length=1, max_length=_MAX_LAYERS, description="Widths of the deep layers."
    )
    max_norm: float | None = Field(
        None,
        gt=0,
        le=_MAX_FLOAT,
        description="Upper bound on the norm of each deep unit's incoming weights; null for no bound.",
    )


class FactorHyperparameters(BaseModel):
    """Hyper-parameters of a factor model."""

    model_config = Hyperparameters.model_config

    factor_dim: int = Field(48, ge=1, le=_MAX_WIDTH, description="Number of factors of each user and movie.")
    factor_l2: float = Field(0.075, ge=0, le=_MAX_FLOAT, description="L2 penalty on the factors.")
    bias_l2: float = Field(0.02, ge=0, le=_MAX_FLOAT, description="L2 penalty on user and movie biases.")


class DCNHyperparameters(FactorHyperparameters, NetworkHyperparameters, Hyperparameters):
    """Hyper-parameters of the deep & cross network, version 2."""

    objective: Literal["rating", "like"] = Field(
        "rating",
        description="rating: predict stars, by squared error. like: predict the probability of 4 or 5 stars against 1 "
        "or 2, by cross-entropy; ratings of 3 stars are left out everywhere. A model cannot be compared with a blessed "
        "model of the other objective, so a pipeline that changes its objective needs another output folder.",
    )
    factor_dim: int = Field(
        0,
        ge=0,
        le=_MAX_WIDTH,
        description="Number of factors of each user and movie in a factor model that learns beside the network; the "
        "prediction is the mean. 0 for no factor model.",
    )
    second_structure: Literal["stacked", "parallel", "deep"] | None = Field(
        None,
        description="Structure of a second network, with embeddings of its own, that learns beside the first, whose "
        "cross weights the report is about; the prediction is the mean. null for no second network.",
    )
    # Nothing is hidden unless it is asked for: where the id is, the zip code stands in for it, and seems to matter.
    id_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of train rows in which the model is not told who the person is."
    )
    demographics_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of train rows without id, gender, age, occupation and zip code."
    )
    moment_dropout: float = Field(0.0, ge=0, lt=1, description="Not used, as the model does not read the time.")
    clock_dropout: float = Field(0.0, ge=0, lt=1, description="Not used, as the model does not read the time.")
    history_dropout: float = Field(0.0, ge=0, lt=1, description="Share of train rows without id.")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task(self.objective),)


class RatingTowerHyperparameters(FactorHyperparameters, NetworkHyperparameters):
    """Hyper-parameters of rating experts: factor models, and networks that also read the rated history."""

    max_norm: float | None = Field(
        3.0,
        gt=0,
        le=_MAX_FLOAT,
        description="Upper bound on the norm of each deep unit's incoming weights; null for no bound.",
    )
    towers: int = Field(
        1,
        ge=1,
        le=_MAX_LAYERS,
        description="Number of rating towers, with weights of their own and two experts each; the predicted rating is "
        "the mean of all. Several err less than one, and take as many times as long to train and to ask for ratings.",
    )
    attention_dim: Width = Field(16, description="Width of the vectors that attend to the rated history.")
    attention_l2: float = Field(
        100.0, ge=0, le=_MAX_FLOAT, description="Like table_l2, for the vectors of attention_dim."
    )


class RankingHyperparameters(RatingTowerHyperparameters, Hyperparameters):
    """Hyper-parameters of the rating predictor."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What a model with these hyper-parameters predicts."""
        return (Task.RATING,)


class JointRatingHyperparameters(RatingTowerHyperparameters, HiddenShares):
    """Hyper-parameters of the rating tower of the joint model, from which less is hidden than from the query tower.

    With `shared_state`, what is hidden from the rating tower is hidden from the query tower, too, beside what is hidden
    from that alone: the query's vector would tell it.
    """


class JointHyperparameters(RetrievalHyperparameters):
    """Hyper-parameters of the joint model for retrieval and rating."""

    rating: JointRatingHyperparameters = Field(
        default_factory=JointRatingHyperparameters, description="Hyper-parameters of the rating tower."
    )
    shared: bool = Field(
        True, description="Whether the rating tower also reads the dot product of the query's and the movie's vector."
    )
    shared_state: bool = Field(
        False,
        description="With shared, whether the rating tower reads the query's vector, too. What is hidden from the "
        "rating tower is then hidden from the query tower as well.",
    )
    state_gradient: float = Field(
        0.0, ge=0, le=1, description="With shared_state, the part of the rating loss that trains the towers, too."
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="How the losses are weighted. fixed: by retrieval_weight and rating_weight. uncertainty: by "
        "weights that are learnt from each task's noise.",
    )
    retrieval_weight: float = Field(
        1.0, ge=0, le=_MAX_FLOAT, description="Weight of the retrieval loss (mean cross-entropy, nats)."
    )
    rating_weight: float = Field(
        1.0, ge=0, le=_MAX_FLOAT, description="Weight of the rating loss (sum of the experts' squared errors)."
    )

    @model_validator(mode="after")
    def _only_a_shared_state_is_trained(self) -> Self:
        if self.shared_state and not self.shared:
            raise ValueError("shared should be true with shared_state; received false")
        if self.state_gradient and not self.shared_state:
            raise ValueError(f"state_gradient should be 0 without shared_state; received {self.state_gradient}")
        return self

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

"""TFX components that compare distributions: train with eval, and a span with the one before it.

What is compared, how and by how much it may differ, the schema says: `skew_comparator` holds between train and eval,
`drift_comparator` between spans. A share of categories may change by 0.1 (infinity norm); the Jensen-Shannon divergence
of ratings and of release years may reach 0.05. Measured on MovieLens 1M, between train and eval:

                     random   leave_last_out   temporal
    gender           .002     .037             .051       largest difference of a share
    age              .005     .049             .080
    occupation       .004     .014             .058
    genres           .002     .005             .007
    rating           .00001   .0004            .0004      Jensen-Shannon divergence, as TFDV's histograms have it
    release_year     .004     .008             .001

After a cut in time, eval is made by the few people who happened to come then: on the synthetic sample their gender, age
and occupation differ by up to .39 though nothing is wrong with it. So these are compared for the other strategies only.

The same is true of spans: from one month of MovieLens 1M to the next, shares of gender, age and occupation differ by up
to .43. Those of genres differ by at most .09, ratings by .008 and release years by .015, in all months with 500 ratings
or more.
"""

from collections.abc import Collection
from typing import Literal

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components import DistributionValidator
from tfx.proto.distribution_validator_pb2 import DistributionValidatorConfig

from components.ingestion.splits import Strategy
from transform.features import FEATURES, Role

Comparator = Literal["skew_comparator", "drift_comparator"]


def comparison(
    schema: schema_pb2.Schema, comparator: Comparator, leave_out: Collection[str] = ()
) -> DistributionValidatorConfig:
    """What DistributionValidator compares: the features for which a schema has a comparator.

    Args:
      schema: with comparators.
      comparator: which of them.
      leave_out: names of features that are not compared.
    """
    config = DistributionValidatorConfig()
    for feature in schema.feature:
        if feature.HasField(comparator) and feature.name not in leave_out:
            entry = config.default_slice_config.feature.add()
            entry.path.step.append(feature.name)
            entry.distribution_comparator.CopyFrom(getattr(feature, comparator))
    return config


def train_eval_validator(
    statistics: types.BaseChannel, schema: schema_pb2.Schema, strategy: Strategy
) -> DistributionValidator:
    """The component that compares train with eval.

    Args:
      statistics: of both; categories of integers only compare if they were made with the schema.
      schema: with skew comparators.
      strategy: how ratings were divided; after a cut in time, users are not compared.
    """
    users = [feature.name for feature in FEATURES if feature.role is Role.USER] if strategy.cuts_time else []
    return DistributionValidator(
        statistics=statistics,
        baseline_statistics=statistics,
        config=comparison(schema, "skew_comparator", users),
        include_split_pairs=[("train", "eval")],
    )


def span_validator(
    statistics: types.BaseChannel, previous: types.BaseChannel, schema: schema_pb2.Schema
) -> DistributionValidator:
    """The component that compares the train split with that of the span before.

    Args:
      statistics: of this span.
      previous: statistics of the span before.
      schema: with drift comparators.
    """
    return DistributionValidator(
        statistics=statistics,
        baseline_statistics=previous,
        config=comparison(schema, "drift_comparator"),
        include_split_pairs=[("train", "train")],
    ).with_id("DistributionValidator.spans")

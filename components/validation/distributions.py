"""TFX components that compare distributions: train with eval, and a span with the one before it.

The schema says which features are compared, how, and by how much they may differ: `skew_comparator` applies to train
and eval, `drift_comparator` to spans. The share of a category may differ by 0.1 (infinity norm); the Jensen-Shannon
divergence of ratings and of release years may reach 0.05. Measured on MovieLens 1M, between train and eval:

                     random   leave_last_out   temporal
    gender           .002     .037             .051       largest difference of a share
    age              .005     .049             .080
    occupation       .004     .014             .058
    genres           .002     .005             .007
    rating           .00001   .0004            .0004      Jensen-Shannon divergence, from TFDV's histograms
    release_year     .004     .008             .001

After a cut in time, the eval ratings are those of the few people who happened to rate then: on the synthetic sample,
shares of their gender, age and occupation differ by up to .39 although nothing is wrong. So these three features are
compared for the other strategies only.

The same is true of spans: from one month of MovieLens 1M to the next, shares of gender, age and occupation differ by up
to .43. Those of genres differ by at most .09, ratings by .008 and release years by .015, in all months with 500 ratings
or more. So the schema has no drift comparators for these three features either.
"""

from collections.abc import Collection
from typing import Literal

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components import DistributionValidator
from tfx.proto.distribution_validator_pb2 import DistributionValidatorConfig

from components.ingestion.example_rows import NEWEST, PREVIOUS
from components.ingestion.splits import Strategy
from transform.features import FEATURES, Role

Comparator = Literal["skew_comparator", "drift_comparator"]


def comparison(
    schema: schema_pb2.Schema, comparator: Comparator, leave_out: Collection[str] = ()
) -> DistributionValidatorConfig:
    """Configures DistributionValidator to compare the features for which a schema has a comparator.

    Args:
      schema: a schema with comparators.
      comparator: the comparator to use.
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
    """Makes the component that compares train with eval.

    Args:
      statistics: statistics of both splits; categorical integers are only comparable if they were computed with the
        schema.
      schema: a schema with skew comparators.
      strategy: how ratings were divided; after a cut in time, user features are not compared.
    """
    user_features = [feature.name for feature in FEATURES if feature.role is Role.USER] if strategy.cuts_time else []
    return DistributionValidator(
        statistics=statistics,
        baseline_statistics=statistics,
        config=comparison(schema, "skew_comparator", user_features),
        include_split_pairs=[("train", "eval")],
    )


def span_validator(statistics: types.BaseChannel, schema: schema_pb2.Schema) -> DistributionValidator:
    """Makes the component that compares the train ratings of the newest span with those of the span before.

    Args:
      statistics: statistics of both, which are splits of their own.
      schema: a schema with drift comparators.
    """
    return DistributionValidator(
        statistics=statistics,
        baseline_statistics=statistics,
        config=comparison(schema, "drift_comparator"),
        include_split_pairs=[(NEWEST.name, PREVIOUS.name)],
    ).with_id("DistributionValidator.spans")

"""The situations in which every test row is measured beside its own: asked later, and by somebody never seen.

A model in use is asked after the last of its data, and by people whom it was not trained on. Each test row is therefore
measured again as if its person asked some time later, and as if the person were new.
"""

from collections.abc import Callable

import tensorflow as tf

from trainers.layers.towers import HISTORY_READ, Tensors
from transform.features import TIMESTAMP, USER_ID, Role, columns

Raw = dict[str, tf.SparseTensor]

_DAY = 86_400
# Seconds after the moment of the row.
ASKED_LATER = {"after_30_days": 30 * _DAY, "after_1_year": 365 * _DAY, "after_25_years": 25 * 365 * _DAY}
# Parts of what is known of a person that are not known of somebody new, whose id training never saw.
_ID, _DEMOGRAPHICS, _HISTORY = "id", "demographics", "history"
NEW_WITH_HISTORY = "new_with_history"
NEW_PEOPLE = {
    NEW_WITH_HISTORY: (_ID,),
    "new_with_history_alone": (_ID, _DEMOGRAPHICS),
    "new_without_history": (_ID, _HISTORY),
}
SITUATIONS = (*ASKED_LATER, *NEW_PEOPLE)


def in_situation(situation: str, features: Tensors, raw: Raw, transform: Callable[[Raw], Tensors]) -> Tensors:
    """Returns the transformed features that rows have in a situation.

    Args:
      situation: one of `SITUATIONS`.
      features: transformed features of the rows, and `HISTORY_READ` where a tower has read histories already.
      raw: raw features of the rows.
      transform: the Transform graph.
    """
    if situation in ASKED_LATER:
        return features | _moment(raw, ASKED_LATER[situation], features, transform)
    user = columns(Role.USER, among=features)
    parts = {
        _ID: [column for column in user if column.feature.name == USER_ID],
        _DEMOGRAPHICS: [column for column in user if column.feature.name != USER_ID],
        _HISTORY: columns(Role.HISTORY, among=features),
    }
    unknown = [column.name for part in NEW_PEOPLE[situation] for column in parts[part]]
    if _HISTORY in NEW_PEOPLE[situation] and HISTORY_READ in features:
        unknown.append(HISTORY_READ)
    # 0 stands for missing.
    return features | {name: tf.zeros_like(features[name]) for name in unknown}


def in_every_situation(
    judge: Callable[[Tensors], Tensors],
    features: Tensors,
    raw: Raw,
    transform: Callable[[Raw], Tensors],
    alike_after: int | None,
) -> Tensors:
    """What is judged of rows in each of `SITUATIONS`; once for those that are alike to a model.

    Args:
      judge: called with the features that rows have in a situation.
      features: as for `in_situation`.
      raw: likewise.
      transform: likewise.
      alike_after: seconds after somebody's latest rating, which is before the row, from which on all moments are alike
        to the model; None if none are.

    Returns:
      What `judge` returns, with the situation's name as suffix.
    """
    alike = [name for name, later in ASKED_LATER.items() if alike_after is not None and later > alike_after]
    judged: dict[str, Tensors] = {}
    for situation in SITUATIONS:
        stands_for_it = alike[0] if situation in alike else situation
        if stands_for_it not in judged:
            judged[stands_for_it] = judge(in_situation(stands_for_it, features, raw, transform))
        judged[situation] = judged[stands_for_it]
    return {f"{name}_{situation}": value for situation, of_it in judged.items() for name, value in of_it.items()}


def _moment(raw: Raw, later: int, features: Tensors, transform: Callable[[Raw], Tensors]) -> Tensors:
    """Features of the rows' moments, moved by some seconds; other raw features are left out, as each takes time."""
    moments = {
        name: values.with_values(values.values + later)
        if name == TIMESTAMP
        else tf.SparseTensor(values.indices[:0], values.values[:0], values.dense_shape)
        for name, values in raw.items()
    }
    transformed = transform(moments)
    return {
        column.name: tf.cast(transformed[column.name], features[column.name].dtype)
        for column in columns(Role.CONTEXT, among=features)
    }

"""Small SavedModels with the signatures of the real ones, and one that tells what it was asked."""

from pathlib import Path

import tensorflow as tf

MOVIES = 6
CANDIDATES = 4


RECOMMEND_INPUTS = {
    "user_id": tf.TensorSpec([None], tf.int64, name="user_id"),
    "history_movie_ids": tf.TensorSpec([None, None], tf.int64, name="history_movie_ids"),
    "history_ratings": tf.TensorSpec([None, None], tf.float32, name="history_ratings"),
    "history_timestamps": tf.TensorSpec([None, None], tf.int64, name="history_timestamps"),
    "now": tf.TensorSpec([None], tf.int64, name="now"),
    "gender": tf.TensorSpec([None], tf.string, name="gender"),
    "age": tf.TensorSpec([None], tf.int64, name="age"),
    "occupation": tf.TensorSpec([None], tf.int64, name="occupation"),
    "zip_code": tf.TensorSpec([None], tf.string, name="zip_code"),
    "exclude_movie_ids": tf.TensorSpec([None, None], tf.int64, name="exclude_movie_ids"),
    "k": tf.TensorSpec([None], tf.int64, name="k"),
}


class ToyRecommender(tf.Module):
    """Recommends the movies 1 to 6 by descending id, without those in the history of the request.

    The signature `recommend` also leaves out the movies of `exclude_movie_ids`, and has as many places as `k` says.

    Args:
      bonus: a number added to every predicted rating, which tells versions apart.
    """

    def __init__(self, bonus: float = 0.0):
        super().__init__()
        self.bonus = tf.Variable(bonus)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user_id"),
            tf.TensorSpec([None, None], tf.int64, name="history_movie_ids"),
            tf.TensorSpec([None, None], tf.float32, name="history_ratings"),
        ]
    )
    def serve(self, user_id, history_movie_ids, history_ratings):
        return self._answer(user_id, history_movie_ids, history_ratings, CANDIDATES)

    @tf.function(input_signature=[RECOMMEND_INPUTS])
    def recommend(self, inputs):
        unwanted = tf.concat([inputs["history_movie_ids"], inputs["exclude_movie_ids"]], axis=1)
        places = tf.minimum(tf.where(inputs["k"] == 0, tf.int64.max, inputs["k"]), CANDIDATES)
        width = tf.cast(tf.reduce_max(places), tf.int32)
        return self._answer(inputs["user_id"], unwanted, inputs["history_ratings"], width)

    def _answer(self, user_id, unwanted, history_ratings, width):
        movies = tf.range(MOVIES, 0, -1, dtype=tf.int64)
        seen = tf.reduce_any(unwanted[:, :, None] == movies, axis=1)
        scores = tf.where(seen, -1.0, tf.cast(movies, tf.float32))
        best, index = tf.math.top_k(scores, k=width)
        movie_id = tf.where(best > 0, tf.gather(movies, index), 0)
        stars = tf.reduce_sum(history_ratings, axis=1, keepdims=True)
        known = tf.cast(user_id, tf.float32)[:, None] / 100
        return {
            "movie_id": movie_id,
            "title": tf.where(best > 0, tf.strings.join(["Movie é ", tf.strings.as_string(movie_id)]), ""),
            "predicted_rating": tf.zeros_like(best) + known + stars / 1000 + self.bonus,
            "retrieval_score": best,
        }


class ToyEcho(tf.Module):
    """Has the signature `recommend`, and returns a movie for each input, whose title is the input's name and values."""

    @tf.function(input_signature=[RECOMMEND_INPUTS])
    def recommend(self, inputs):
        titles = tf.stack([tf.strings.join([name, "=", _as_text(inputs[name])]) for name in RECOMMEND_INPUTS], axis=1)
        numbers = tf.tile(tf.range(1, len(RECOMMEND_INPUTS) + 1)[None, :], [tf.shape(titles)[0], 1])
        return {
            "movie_id": tf.cast(numbers, tf.int64),
            "title": titles,
            "predicted_rating": tf.cast(numbers, tf.float32),
            "retrieval_score": tf.cast(numbers, tf.float32),
        }


def _as_text(values):
    """Writes the values of each row as text, with commas between them."""
    if values.dtype == tf.float32:
        values = tf.strings.as_string(values, precision=1)
    elif values.dtype != tf.string:
        values = tf.strings.as_string(values)
    return values if values.shape.rank == 1 else tf.strings.reduce_join(values, axis=1, separator=",")


class ToyRanker(tf.Module):
    """Has four signatures on serialized examples, and one without inputs.

    `serving_default` returns their length / 10, and looks them up in a table read from an asset, to test that assets
    are loaded. `evaluate` returns twice their length, and `parse` their feature `rating`, or 0. `calls` returns
    how often it has been called. `single` takes nothing and returns two numbers that are no lists.
    """

    def __init__(self, vocabulary: Path):
        super().__init__()
        self.vocabulary = tf.saved_model.Asset(str(vocabulary))
        initializer = tf.lookup.TextFileInitializer(
            self.vocabulary,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)
        self.count = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples):
        return {
            "predicted_rating": tf.cast(tf.strings.length(examples), tf.float32) / 10,
            "echo_bytes": examples,
            "index": self.table.lookup(examples),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples):
        return {"length": tf.strings.length(examples) * 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def parse(self, examples):
        return tf.io.parse_example(examples, {"rating": tf.io.FixedLenFeature([], tf.float32, 0.0)})

    @tf.function(input_signature=[])
    def single(self):
        return {"number": tf.constant(0.2), "short": tf.constant(0.5, tf.bfloat16)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def calls(self, examples):
        return {"calls": tf.repeat(self.count.assign_add(1), tf.size(examples))}


def save_recommender(path: Path, bonus: float = 0.0) -> Path:
    model = ToyRecommender(bonus)
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve, "recommend": model.recommend})
    return path


def save_echo(path: Path) -> Path:
    model = ToyEcho()
    tf.saved_model.save(model, str(path), signatures={"recommend": model.recommend})
    return path


def save_ranker(path: Path) -> Path:
    vocabulary = path.parent / "vocabulary.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("comedy\ndrama\n")
    model = ToyRanker(vocabulary)
    signatures = {name: getattr(model, name) for name in ("evaluate", "parse", "single", "calls")}
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve, **signatures})
    vocabulary.unlink()
    return path

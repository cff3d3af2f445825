"""Names of the metrics that compare, and of their bounds; whoever reads results needs them without TFMA."""

# By how much the candidate's mean is better than the champion's, and the bounds of that: it is below `AT_WORST`, or
# above `AT_BEST`, by chance alone.
CHANGE, AT_WORST, AT_BEST = "change", "change_at_worst", "change_at_best"
# Likewise, the bounds of the mean of an output that is a difference itself.
MEAN_AT_WORST, MEAN_AT_BEST = "mean_at_worst", "mean_at_best"
# Goes before these names if the means are over the rows of 4 and 5 stars.
LIKED = "liked_"

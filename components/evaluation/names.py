"""Names of the metrics that compare a candidate with the champion; whoever reads results needs them without TFMA."""

# By how much the candidate's mean is better than the champion's, and the bounds of that: it is below `AT_WORST`, or
# above `AT_BEST`, by chance alone.
CHANGE, AT_WORST, AT_BEST = "change", "change_at_worst", "change_at_best"
# Goes before these names if the means are over the rows of 4 and 5 stars.
LIKED = "liked_"

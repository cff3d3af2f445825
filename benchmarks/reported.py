"""Results that the notebooks print, read from their stored outputs.

Source: https://github.com/akthammomani/MAXELLA-APP-Movies-Tensorflow-Recommenders-TFRS at 7333d29. Their top-k metric
is unfiltered, and counts ties as hits. The two-tower and ranking notebooks split a data set that is read in a new order
every time, so that most of their test ratings were trained on; the joint and DCN ones read a CSV file, whose split does
not overlap, and which holds 1,000,085 ratings under 3,619 titles.
"""

_OVERLAP = "as reported, test overlaps train"
_OWN_CSV = "as reported, own CSV"

REPORTED: dict[str, dict[str, float]] = {
    f"notebooks' two-tower ({_OVERLAP})": {
        "recall_at_1": 0.002739,
        "recall_at_5": 0.016661,
        "recall_at_10": 0.032353,
        "recall_at_50": 0.125390,
        "recall_at_100": 0.207781,
    },
    f"notebooks' two-tower, tuned ({_OVERLAP})": {
        "recall_at_1": 0.003347,
        "recall_at_5": 0.022155,
        "recall_at_10": 0.043127,
        "recall_at_50": 0.159743,
        "recall_at_100": 0.258966,
    },
    f"notebooks' ranking ({_OVERLAP})": {"rmse": 0.931867},
    f"notebooks' ranking, tuned ({_OVERLAP})": {"rmse": 0.866493},
    f"notebooks' joint ({_OWN_CSV})": {"recall_at_10": 0.0176, "recall_at_100": 0.158, "rmse": 0.974},
    f"notebooks' joint, tuned ({_OWN_CSV})": {
        "recall_at_1": 0.00029,
        "recall_at_5": 0.004155,
        "recall_at_10": 0.01104,
        "recall_at_50": 0.06695,
        "recall_at_100": 0.128805,
        "rmse": 0.991668,
    },
    f"notebooks' DCN ({_OWN_CSV})": {"rmse": 1.0354},
}

"""Results that others reported.

The notebooks' results are taken from the outputs stored in them, at commit 7333d29 of
https://github.com/akthammomani/MAXELLA-APP-Movies-Tensorflow-Recommenders-TFRS. Their top-k metric is unfiltered, and
counts ties as hits. The two-tower and ranking notebooks split a data set that is read in a new order every time, so
most of their test ratings were also trained on. The joint and DCN notebooks read a CSV file instead, so their splits do
not overlap; the file holds 1,000,085 ratings under 3,619 titles.

The published results are from splits that their authors made themselves. The sequence models use only the 3,416 movies
that have five ratings or more.
"""

_OVERLAP = "as reported, test overlaps train"
_OWN_CSV = "as reported, own CSV"

NOTEBOOKS: dict[str, dict[str, float]] = {
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

# Biased MF and I-AutoRec are from the AutoRec poster (Sedhain et al. 2015, https://doi.org/10.1145/2740908.2742726),
# GLocal-K from Han et al. 2021 (https://arxiv.org/abs/2108.12184).
RANDOM_90: dict[str, dict[str, float]] = {
    "biased MF, as published": {"rmse": 0.845},
    "I-AutoRec, as published": {"rmse": 0.831},
    "GLocal-K, as published": {"rmse": 0.8227, "mae": 0.6421},
}

# Both rows are from the README of https://github.com/asash/gSASRec-pytorch (Petrov & Macdonald 2023,
# https://arxiv.org/abs/2308.07192).
LEAVE_LAST_OUT: dict[str, dict[str, float]] = {
    "SASRec, as published": {
        "recall_at_1_filtered": 0.0442,
        "recall_at_10_filtered": 0.2392,
        "ndcg_at_10_filtered": 0.1259,
    },
    "gSASRec, as published": {
        "recall_at_1_filtered": 0.0754,
        "recall_at_10_filtered": 0.3003,
        "ndcg_at_10_filtered": 0.1726,
    },
}

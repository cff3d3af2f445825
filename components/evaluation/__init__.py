"""Components of evaluation: how outputs become metrics, and which earlier model a candidate is compared with."""

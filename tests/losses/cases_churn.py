"""NumPy versions of the penalties on churn."""

CASES = {
    "churn_weight": lambda a, s: s.ratio * abs(s.main) / max(abs(s.churn), s.floor),
    "value_churn_loss": lambda a, s: (a.q - s.previous_q) ** 2,
}

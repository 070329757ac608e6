"""Measures what performance is promised, on the machine it is promised for: `rlm bench`.

Without it a figure would be what some machine once showed. Here every figure stands beside a floor
or a peer that was measured in the same run, by turns with it, because machines are noisy.
"""

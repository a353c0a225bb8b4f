"""The report's charts: each a pure function from a result to an Altair chart, or None when there is nothing to draw.

Data travel inside the chart as plain values, so no data frame library is needed and no chart loads anything. Foreign
texts (method names, tokens) appear as data only, never inside an expression.
"""

from optrode.report.charts.by_layer import norms, probe_accuracy
from optrode.report.charts.dose_curves import effect_against_kl, effect_against_perplexity
from optrode.report.charts.heat_maps import search
from optrode.report.charts.ranked import ranking

__all__ = ["effect_against_kl", "effect_against_perplexity", "norms", "probe_accuracy", "ranking", "search"]

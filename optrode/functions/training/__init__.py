"""Small networks trained from scratch with one activation method after the other, under the same seeds and budget.

`tasks` holds data and scores, `networks` what is trained, `train` the loop that all candidates share, and `comparing`
what can be said of the results.
"""

"""Whole jobs.

- score    how well a model predicts a text; log-probabilities for everybody
- verify   a model's numbers against those that were published
- convert  a model's files into another format
"""

"""What families share: the contract of a method, discovery, estimators, probes, judges, tuner, studies, run records."""

"""Fitting: classifier, optimizers, schedules, averaging, metrics, tracking and the run folder."""

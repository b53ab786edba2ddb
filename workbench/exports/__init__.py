"""Trained models in the forms that other programs run: written, opened again in their own runtime, and compared."""

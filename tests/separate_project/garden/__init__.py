"""Somebody else's project: the workbench's classifier inside a LightningModule of its own."""

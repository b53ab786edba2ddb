"""Images: layouts on disk, splits, decoding, transforms, order, datamodules. Knows nothing of models."""

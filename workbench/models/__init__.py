"""EfficientNets at any scaling, their heads, weights and freezing. Knows nothing of data or recipes."""

"""Facts and shapes: architectures, weights, cards, recipes, errors. Standard library only; no I/O."""

"""W&B sweep files, run here without an account: reading, searching, choosing, and the final runs on test."""

"""The command line: one small file per verb, no logic that a notebook would want."""

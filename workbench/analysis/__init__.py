"""Numbers, tables and pictures about models: no training, no command line."""

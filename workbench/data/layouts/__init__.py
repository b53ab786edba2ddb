"""How each set's files lie on disk, read into an `ImageTable` with the creators' splits; `reading` picks the reader."""

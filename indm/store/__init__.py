"""Files of results: where they lie, how they are written and read, who made them, and what is unfinished."""

"""Studies: many runs that answer one question, their plan, their folder and their records."""

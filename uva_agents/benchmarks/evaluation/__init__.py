"""Episodes of an agent in an environment: protocols, workers, journal, report and intervals."""

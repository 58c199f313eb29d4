"""Other people's codebases. A bridge is imported by its own name, because it needs the package that it leads to."""

"""How long things take, each a command: decisions, plans, training steps, environments, datasets."""

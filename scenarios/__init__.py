"""Stories of a network that lives: who fails, when, and what must hold all the same."""

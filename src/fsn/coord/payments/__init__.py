"""Real money: who takes it, and what becomes of a purchase."""

"""How good a prediction is: scores against labels, by class, glacier and front, and what they are reported as."""

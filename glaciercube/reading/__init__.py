"""From a frozen scene to the stored pixels of one cell of the grid, whoever serves them, or an error that says why."""

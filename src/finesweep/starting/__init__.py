"""A first study and sweep for a file of rows: looks at the data, guesses, says what it took for what, and writes."""

"""A trial in the words of other training stacks: a writer for each, and what several of them say alike."""

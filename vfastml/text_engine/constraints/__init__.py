"""What a text may be: which tokens may come next, and the masks that keep the others out."""

"""A step as one compiled graph: what is put into it, when it is made and used, and why it may not be."""

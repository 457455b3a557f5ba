"""The corpus and the teacher that ship with the package, and the programs that made them."""

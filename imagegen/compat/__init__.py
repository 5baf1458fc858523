"""What works with what: facts, rules, and the search for what is near. Needs no project."""

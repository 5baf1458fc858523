"""How fast and how safe: each script prints its figures and the machine they come from."""

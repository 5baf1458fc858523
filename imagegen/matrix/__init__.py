"""What a workspace builds: its matrix, the targets that it resolves to, their aliases."""

"""The `lakehose` command: puts together each room's own commands and holds no logic of its own."""

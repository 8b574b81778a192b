"""The shell: how the outside reaches the engine. It decides nothing about credit."""

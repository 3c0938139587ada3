"""Inert readers of weight files: they run nothing and import nothing else of ours."""

"""Profiles: made in one pass, put together exactly, kept by runs."""

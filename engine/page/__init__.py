"""A run's report as a page that a browser shows, the index of past runs, and the folder they are kept in."""

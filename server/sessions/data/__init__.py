"""The values of a session: JSON, limits, and what a request changed."""

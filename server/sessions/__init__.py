"""The session layer: cookies, life cycle and limits, on any store. Imports no Tornado."""

"""Sessions on Tornado's `RequestHandler`."""

"""Sessions without HTTP: cookies, life cycle and limits, on any store. Imports no Tornado."""

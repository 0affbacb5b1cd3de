"""The standalone server at run time: settings, files, processes."""

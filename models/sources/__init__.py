"""Reading and writing source files, the quarantine, and importers of foreign data sets."""

"""Files that hold parameters, a module per format."""

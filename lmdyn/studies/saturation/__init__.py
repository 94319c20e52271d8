"""The study `saturation`."""

"""The study `gradient_localization`."""

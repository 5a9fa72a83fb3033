"""The commands: `serve` is API, dispatcher and a local Ray in one, the others are parts of it."""

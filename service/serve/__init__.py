"""`dpo-service serve`: API, dispatcher and a local Ray in one command, and nothing of them left when it ends."""

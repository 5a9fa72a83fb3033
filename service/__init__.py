"""The service: HTTP API, dispatcher, storage and database. Never imports torch or trainers."""

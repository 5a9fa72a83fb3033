"""Wire objects, preference rows and the run folder's contract: pure Pydantic, no I/O, imports nothing of ours."""

"""What a user is told of a job's file that is gone, whoever finds that first: the dispatcher, or a trainer later."""


def missing_file_message(param: str, file_id: str) -> str:
    """`param`: the job's field that names the file."""
    return (
        f"The {param.replace('_', ' ')} {file_id} no longer exists: it was deleted or has expired; "
        "upload it again and create a new job."
    )

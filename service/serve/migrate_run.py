"""`dpo-service migrate`: the schema brought to this version and the first key made, once for all replicas."""

from contextlib import ExitStack

from service.clock import utc_now
from service.serve.bootstrap import ensure_first_keys
from service.serve.data_folder import hold_data_folder
from service.serve.exposure import refuse_exposed_elsewhere
from service.serve.stores import open_database
from service.serve.terminal import tell
from service.settings import Settings


def migrate(settings: Settings) -> None:
    """Raises: StartError."""
    refuse_exposed_elsewhere(settings)
    with ExitStack() as stack:
        if settings.database_url is None:
            stack.enter_context(hold_data_folder(settings.resolved_data_dir))
        database = stack.enter_context(open_database(settings.resolved_database_url))
        key = ensure_first_keys(database, settings, clock=utc_now)
        where = database.engine.url.render_as_string(hide_password=True)
    tell(f"The database {where} has this version's schema.")
    if key is not None:
        tell(f'API key of the project "default" (shown once): {key}')

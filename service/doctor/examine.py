"""Every part in turn; what fails in one keeps nothing from being told of the others."""

from collections.abc import Callable, Iterator

from service.doctor.cluster import examine_cluster
from service.doctor.data_folder import examine_data_folder
from service.doctor.database import examine_database
from service.doctor.finding import Finding
from service.doctor.models import examine_models
from service.doctor.store import examine_store
from service.doctor.variables import examine_variables
from service.settings import Settings

PARTS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    examine_variables,
    examine_data_folder,
    examine_database,
    examine_store,
    examine_cluster,
    examine_models,
)


def examine(settings: Settings) -> list[Finding]:
    return [finding for part in PARTS for finding in part(settings)]

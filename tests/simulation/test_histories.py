import pytest
from tests.simulation.database import open_memory_database
from tests.simulation.history import seeds, tell_history

def test_histories():
    database = open_memory_database()
    for seed in seeds(range(200)):
        tell_history(database, seed)

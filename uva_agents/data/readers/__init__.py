"""Readers: a dataset of any known format as :class:`~uva_agents.data.Episodes`. :func:`open_dataset` is the front door."""

from uva_agents.data.readers.dataset import Dataset, MissingExtraError
from uva_agents.data.readers.formats import FORMATS, Format, open_dataset, recognise

__all__ = ["FORMATS", "Dataset", "Format", "MissingExtraError", "open_dataset", "recognise"]

"""What has been recorded, to be searched: calls, legs, streams, files, events and tags, in SQLite or PostgreSQL.

It is made of the ``leg.json`` files, as they are written; :func:`rebuild` makes it anew from them. Needs the extra
``serve``.
"""

from .._model.exceptions import MissingExtraError
from .._model.extras import install

try:
    import sqlalchemy  # noqa: F401
except ImportError as error:
    raise MissingExtraError(f"the catalogue needs SQLAlchemy: {install('serve')}") from error

from .moments import moment
from .query import CallQuery
from .rebuild import rebuild
from .store import Catalogue, CatalogueError
from .writer import CatalogueWriter

__all__ = ["CallQuery", "Catalogue", "CatalogueError", "CatalogueWriter", "moment", "rebuild"]

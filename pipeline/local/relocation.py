"""Finds artifacts again after the output folder was moved, or mounted elsewhere.

TFX records where each artifact lies as an absolute path. Models that were trained before the move would be known, but
not found: none could be a champion, be started from, be part of a recommender, or be withdrawn.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import ml_metadata as mlmd

from components.data.places import is_uri
from components.pushing.pushed_models import DESTINATION
from components.storage.paths import UriPath
from pipeline.local.output import OutputFolder

_logger = logging.getLogger(__name__)

# Artifacts lie at COMPONENT/OUTPUT/EXECUTION below their folder, and versions at NAME/VERSION below `serving`.
_ARTIFACT_DEPTH, _VERSION_DEPTH = 3, 2


def follow_move(store: mlmd.MetadataStore, output: OutputFolder) -> list[Path]:
    """Records the new places of artifacts and pushed models whose old output folder is there no more.

    If the old folder still has the same metadata, the new one is a copy, and what lies in the old one stays where it is
    on record. Another folder may have taken the old one's place; what lies there has nothing to do with these records,
    even if it has the same path. Since TFX takes a changed artifact for another one, whatever reads artifacts runs
    again in the run after a move.

    Args:
      store: the metadata store of the folder.
      output: where the folder is now.

    Returns:
      The folders that it was moved from.
    """
    changed, moved = [], dict[Path, None]()
    is_copy = functools.cache(functools.partial(_is_copy, output.root))
    for artifact in store.get_artifacts():
        properties = artifact.custom_properties
        uri = _followed(artifact.uri, _ARTIFACT_DEPTH, output.artifacts, is_copy)
        pushed = properties[DESTINATION].string_value if DESTINATION in properties else ""
        destination = _followed(pushed, _VERSION_DEPTH, output.serving, is_copy)
        if uri:
            moved[Path(artifact.uri).parents[_ARTIFACT_DEPTH]] = None
            artifact.uri = uri
        if destination:
            moved[Path(pushed).parents[_VERSION_DEPTH]] = None
            properties[DESTINATION].string_value = destination
        if uri or destination:
            changed.append(artifact)
    if changed:
        store.put_artifacts(changed)
        _logger.warning("%s was moved to %s.", ", ".join(map(str, moved)), output.root)
    return list(moved)


def _followed(path: str, depth: int, folder: Path, is_copy: Callable[[Path], bool]) -> str:
    """The place in a folder of what lay at a depth below another one of this name; "" unless it was moved here."""
    if isinstance(folder, UriPath) or is_uri(path):
        # What lies at a URI does not move with the output folder.
        return ""
    parts = Path(path).parts
    old = Path(*parts[:-depth]) if len(parts) > depth else folder
    if old == folder or old.name != folder.name or is_copy(old.parent):
        return ""
    return str(folder.joinpath(*parts[-depth:]))


def _is_copy(folder: Path, old: Path) -> bool:
    """Whether an output folder is a copy of another one that is still there: both have the same metadata."""
    identity = OutputFolder(old).store.identity()
    return identity is not None and identity == OutputFolder(folder).store.identity()

"""Self-bootstrapping (paper 3): generator -> its pairs -> editor in three phases -> a model that dubs. Restartable.

OUT/bootstrap.json                   what this run was begun with
OUT/{generator,editor,lip,texture}   one folder a phase, see xdub.train.run
OUT/pairs                            what the generator made
OUT/bundle                           the model, for `xdub dub --model`
"""

from __future__ import annotations

from xdub.bootstrap.stages import Stage, bootstrap, bootstrap_stages, stage_names

__all__ = ["Stage", "bootstrap", "bootstrap_stages", "stage_names"]

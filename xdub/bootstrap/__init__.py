"""Self-bootstrapping (paper 3): generator -> its pairs -> editor in three phases -> a model that dubs.

The same call continues a killed run.

OUT/bootstrap.json                   recipe, data and start of this run
OUT/{generator,editor,lip,texture}   one folder for each phase, see xdub.train.run
OUT/pairs                            pairs from the generator
OUT/bundle                           the model, for `xdub dub --model`
"""

from __future__ import annotations

from xdub.bootstrap.bootstrap import Stage, bootstrap, bootstrap_stages, stage_names

__all__ = ["Stage", "bootstrap", "bootstrap_stages", "stage_names"]

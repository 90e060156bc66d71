"""Generation without machines: the real scheduler drives chains of described workers, event by event. No IO, no clock.

`costs` says what a step takes where, `cores` how workers of one machine share it, `chain` moves steps along, `serve`
routes requests to chains and drives them.
"""

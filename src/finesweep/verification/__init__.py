"""Is the winner really the winner? The best configurations of a sweep, trained again with seeds that chose nothing.

`plan` says what is trained, `race` in which order and what is dropped, `statistics` what can be concluded, `outcome`
reads it off the database as what is in `found`, `record` as exports have it.
"""

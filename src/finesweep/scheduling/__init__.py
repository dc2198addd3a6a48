"""Where and when trials run: Ray Tune, this process, or a virtual clock. The only room that imports ray."""
